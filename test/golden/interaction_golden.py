#!/usr/bin/env python3
"""Makes dense_interactions.txt: ten Adam steps of each model type in PyTorch.

Run it with torch installed: python3 test/golden/interaction_golden.py
The format is described in test/native/golden.h. Weights start from values given in the file, not from an initializer.
"""

import pathlib

import torch
from torch import nn

STEPS, ROWS = 10, 20
FIELDS, DIM, DENSE_COUNT, HIDDEN, BOTTOM = 4, 3, 5, [16, 8], [7]
WIDTH = FIELDS * DIM + DENSE_COUNT
TASKS = 2
POSITIVE_WEIGHT, SECOND_TASK_WEIGHT = 5.0, 0.5


def chain(width: int, widths: list[int], relu_at_end: bool) -> nn.Sequential:
    layers = []
    for out in widths:
        layers += [nn.Linear(width, out), nn.ReLU()]
        width = out
    return nn.Sequential(*(layers if relu_at_end else layers[:-1]))


def named(name: str, sequence: nn.Sequential) -> dict[str, nn.Linear]:
    linears = [layer for layer in sequence if isinstance(layer, nn.Linear)]
    return {f"{name}.{index}": layer for index, layer in enumerate(linears)}


class Ffnn(nn.Module):
    def __init__(self, width: int = WIDTH):
        super().__init__()
        self.deep = chain(width, [*HIDDEN, TASKS], False)

    def layers(self) -> dict[str, nn.Linear]:
        return named("layer", self.deep)

    def forward(self, x):
        return self.deep(x)


class DeepFm(Ffnn):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, TASKS, bias=False)

    def layers(self):
        return super().layers() | {"linear": self.linear}

    def forward(self, x):
        vectors = x[:, : FIELDS * DIM].reshape(-1, FIELDS, DIM)
        pairs = 0.5 * (vectors.sum(1) ** 2 - (vectors**2).sum(1)).sum(1, keepdim=True)
        return self.deep(x) + self.linear(x) + pairs


class Dcn(Ffnn):
    def __init__(self, depth: int, rank: int, stacked: bool):
        super().__init__()
        self.rank, self.stacked = rank, stacked
        full = lambda: nn.ModuleList([nn.Linear(WIDTH, WIDTH)])  # noqa: E731
        low = lambda: nn.ModuleList([nn.Linear(WIDTH, rank, bias=False), nn.Linear(rank, WIDTH)])  # noqa: E731
        self.cross = nn.ModuleList([low() if rank else full() for _ in range(depth)])
        self.head = None if stacked else nn.Linear(WIDTH, TASKS, bias=False)

    def layers(self):
        layers = super().layers()
        for index, parts in enumerate(self.cross):
            for suffix, part in zip([".v", ".u"] if self.rank else [""], parts):
                layers[f"cross.{index}{suffix}"] = part
        return layers if self.stacked else layers | {"cross.head": self.head}

    def forward(self, x):
        crossed = x
        for parts in self.cross:
            product = crossed
            for part in parts:
                product = part(product)
            crossed = x * product + crossed
        return self.deep(crossed) if self.stacked else self.deep(x) + self.head(crossed)


class Dlrm(Ffnn):
    def __init__(self):
        super().__init__(DIM + (FIELDS + 1) * FIELDS // 2)
        self.bottom = chain(DENSE_COUNT, [*BOTTOM, DIM], True)

    def layers(self):
        return super().layers() | named("bottom", self.bottom)

    def forward(self, x):
        dense = self.bottom(x[:, FIELDS * DIM :])
        vectors = torch.cat([dense.unsqueeze(1), x[:, : FIELDS * DIM].reshape(-1, FIELDS, DIM)], 1)
        dots = torch.bmm(vectors, vectors.transpose(1, 2))
        i, j = torch.tril_indices(FIELDS + 1, FIELDS + 1, -1)
        return self.deep(torch.cat([dense, dots[:, i, j]], 1))


MODELS = {
    "ffnn": Ffnn,
    "deepfm": DeepFm,
    "dcn_stacked": lambda: Dcn(2, 0, True),
    "dcn_parallel": lambda: Dcn(3, 4, False),
    "dlrm": Dlrm,
}


def write(file, name: str, tensor: torch.Tensor) -> None:
    shape = " ".join(str(size) for size in tensor.shape)
    values = " ".join("%.9g" % value for value in tensor.detach().flatten().tolist())
    file.write(f"{name} {shape} : {values}\n")


def tensors(model: Ffnn) -> dict[str, torch.Tensor]:
    layers = model.layers().items()
    return {f"{name}.{part}": value for name, layer in layers for part, value in layer.named_parameters()}


def train(file, name: str, model: Ffnn, inputs, labels) -> None:
    for tensor, value in tensors(model).items():
        write(file, f"{name}.start.{tensor}", value)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    positive_weight = torch.tensor(POSITIVE_WEIGHT)
    losses = []
    for x, y in zip(inputs, labels):
        x = x.clone().requires_grad_()
        outputs = model(x)
        bce = nn.functional.binary_cross_entropy_with_logits
        loss = bce(outputs[:, 0], y[:, 0], pos_weight=positive_weight)
        loss = loss + SECOND_TASK_WEIGHT * nn.functional.mse_loss(outputs[:, 1], y[:, 1])
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            write(file, f"{name}.first_embedding_gradient", x.grad[:, : FIELDS * DIM])
        optimizer.step()
        losses.append(loss.detach())
    write(file, f"{name}.losses", torch.stack(losses))
    write(file, f"{name}.embedding_gradient", x.grad[:, : FIELDS * DIM])  # of the last step
    for tensor, value in tensors(model).items():
        write(file, f"{name}.{tensor}", value)
        for state in ("exp_avg", "exp_avg_sq"):
            write(file, f"{name}.{tensor}.{state}", optimizer.state[value][state])
    outputs = model(inputs[0])
    write(file, f"{name}.predictions", torch.stack([torch.sigmoid(outputs[:, 0]), outputs[:, 1]], 1))


def main() -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    inputs = torch.randn(STEPS, ROWS, WIDTH)
    labels = torch.stack([torch.randint(0, 2, (STEPS, ROWS)).float(), torch.randn(STEPS, ROWS)], 2)
    with open(pathlib.Path(__file__).parent / "dense_interactions.txt", "w") as file:
        file.write("# Made by interaction_golden.py with PyTorch " + torch.__version__.split("+")[0] + "\n")
        write(file, "inputs", inputs)
        write(file, "labels", labels)
        for name, make in MODELS.items():
            train(file, name, make(), inputs, labels)


main()

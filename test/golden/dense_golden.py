#!/usr/bin/env python3
"""Makes dense_training.txt: 50 training steps of a small two-task network in PyTorch, for each dense optimizer.

Run it with torch installed: python3 test/golden/dense_golden.py
The format is described in test/native/golden.h. Weights start from values given in the file, not from an initializer.
"""

import math
import pathlib

import torch

STEPS, BATCHES, ROWS = 50, 4, 12
EMBEDDING_WIDTH, DENSE_COUNT, HIDDEN = 8, 3, [16, 8]
CLIP_NORM = 0.5
MSE_WEIGHT = 0.5


def schedule(step: int) -> float:
    """Warm-up over 5 steps, then a cosine from 1 down to 0.1 at step 40."""
    progress = min(max((step - 5) / 35, 0), 1)
    return min(1, step / 5) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))


OPTIMIZERS = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.05), False),
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01), True),
    "adam": (lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01), True),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1), True),
}


def write(file, name: str, tensor: torch.Tensor) -> None:
    shape = " ".join(str(size) for size in tensor.shape)
    values = " ".join("%.9g" % value for value in tensor.detach().flatten().tolist())
    file.write(f"{name} {shape} : {values}\n")


def network() -> torch.nn.Sequential:
    torch.manual_seed(2)
    layers, width = [], EMBEDDING_WIDTH + DENSE_COUNT
    for hidden in HIDDEN:
        layers += [torch.nn.Linear(width, hidden), torch.nn.ReLU()]
        width = hidden
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 2))


def train(file, name: str, make_optimizer, clip_and_schedule: bool, inputs, labels) -> None:
    model = network()
    optimizer = make_optimizer(model.parameters())
    lr = optimizer.param_groups[0]["lr"]
    losses = []
    for step in range(1, STEPS + 1):
        x = inputs[(step - 1) % BATCHES].clone().requires_grad_()
        y = labels[(step - 1) % BATCHES]
        outputs = model(x)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], y[:, 0])
        loss = loss + MSE_WEIGHT * torch.nn.functional.mse_loss(outputs[:, 1], y[:, 1])
        optimizer.zero_grad()
        loss.backward()
        if clip_and_schedule:
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.param_groups[0]["lr"] = lr * schedule(step)
        optimizer.step()
        losses.append(loss.detach())
    write(file, f"{name}.losses", torch.stack(losses))
    write(file, f"{name}.embedding_gradient", x.grad[:, :EMBEDDING_WIDTH])  # of the last step
    linears = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    for index, layer in enumerate(linears):
        for part, parameter in (("weight", layer.weight), ("bias", layer.bias)):
            write(file, f"{name}.layer.{index}.{part}", parameter)
            for state, value in optimizer.state[parameter].items():
                if state != "step" and value is not None:
                    write(file, f"{name}.layer.{index}.{part}.{state}", value)
    outputs = model(inputs[0])
    write(file, f"{name}.predictions", torch.stack([torch.sigmoid(outputs[:, 0]), outputs[:, 1]], 1))


def main() -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    inputs = torch.randn(BATCHES, ROWS, EMBEDDING_WIDTH + DENSE_COUNT)
    labels = torch.stack([torch.randint(0, 2, (BATCHES, ROWS)).float(), torch.randn(BATCHES, ROWS)], 2)
    with open(pathlib.Path(__file__).parent / "dense_training.txt", "w") as file:
        file.write("# Made by dense_golden.py with PyTorch " + torch.__version__.split("+")[0] + "\n")
        write(file, "inputs", inputs)
        write(file, "labels", labels)
        for index, layer in enumerate(layer for layer in network() if isinstance(layer, torch.nn.Linear)):
            write(file, f"start.layer.{index}.weight", layer.weight)
            write(file, f"start.layer.{index}.bias", layer.bias)
        for name, (make_optimizer, clip_and_schedule) in OPTIMIZERS.items():
            train(file, name, make_optimizer, clip_and_schedule, inputs, labels)


main()

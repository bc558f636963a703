#!/usr/bin/env python3
"""A training step of one model type on the CPU, Persia beside PyTorch in one run.

Both sides train the shape of bench/micro/dense_types_bench.cc (26 fields of dim 16, 13 dense inputs, hidden layers
1024-512-256, binary cross-entropy, Adam, fp32, batches of 1024) and compute the gradient of the embeddings. Samples
alternate as in ffnn_cpu.py, with its probe around each.

    cmake --preset release && cmake --build --preset release
    python3 bench/peers/model_types_cpu.py dlrm --out bench/results/model_types_cpu.jsonl      # needs torch
"""

import argparse
import json
import os
import pathlib
import statistics
import sys

import ffnn_cpu
import torch
from torch import nn

ROWS, FIELDS, DIM, DENSE_COUNT = 1024, 26, 16, 13
WIDTH = FIELDS * DIM + DENSE_COUNT
HIDDEN, BOTTOM, CROSS_LAYERS, RANK = [1024, 512, 256], [512, 256], 3, 64


def chain(width: int, widths: list[int]) -> nn.Sequential:
    return nn.Sequential(*[part for a, b in zip([width, *widths], widths) for part in (nn.Linear(a, b), nn.ReLU())])


class Ffnn(nn.Module):
    def __init__(self, width: int = WIDTH):
        super().__init__()
        self.hidden, self.head = chain(width, HIDDEN), nn.Linear(HIDDEN[-1], 1)

    def forward(self, embeddings, dense):
        return self.deep(torch.cat([embeddings, dense], 1))

    def deep(self, x):
        return self.head(self.hidden(x))


class DeepFm(Ffnn):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, 1, bias=False)

    def forward(self, embeddings, dense):
        x, vectors = torch.cat([embeddings, dense], 1), embeddings.view(-1, FIELDS, DIM)
        pairs = 0.5 * (vectors.sum(1).square() - vectors.square().sum(1)).sum(1, keepdim=True)
        return self.deep(x) + self.linear(x) + pairs


class Dcn(Ffnn):
    def __init__(self):
        super().__init__()
        self.cross = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(CROSS_LAYERS))
        self.cross_head = nn.Linear(WIDTH, 1, bias=False)

    def forward(self, embeddings, dense):
        x = crossed = torch.cat([embeddings, dense], 1)
        for layer in self.cross:
            crossed = torch.addcmul(crossed, x, layer(crossed))
        return self.deep(x) + self.cross_head(crossed)


class DcnLowRank(Ffnn):
    def __init__(self):
        super().__init__()
        self.v = nn.ModuleList(nn.Linear(WIDTH, RANK, bias=False) for _ in range(CROSS_LAYERS))
        self.u = nn.ModuleList(nn.Linear(RANK, WIDTH) for _ in range(CROSS_LAYERS))

    def forward(self, embeddings, dense):
        x = crossed = torch.cat([embeddings, dense], 1)
        for v, u in zip(self.v, self.u):
            crossed = torch.addcmul(crossed, x, u(v(crossed)))
        return self.deep(crossed)


class Dlrm(Ffnn):
    def __init__(self):
        super().__init__(DIM + (FIELDS + 1) * FIELDS // 2)
        self.bottom = chain(DENSE_COUNT, [*BOTTOM, DIM])
        self.i, self.j = torch.tril_indices(FIELDS + 1, FIELDS + 1, -1)

    def forward(self, embeddings, dense):
        bottom = self.bottom(dense)
        vectors = torch.cat([bottom.unsqueeze(1), embeddings.view(-1, FIELDS, DIM)], 1)
        dots = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.i, self.j]
        return self.deep(torch.cat([bottom, dots], 1))


TYPES = {"ffnn": Ffnn, "deepfm": DeepFm, "dcn": Dcn, "dcn_low_rank": DcnLowRank, "dlrm": Dlrm}


class Persia(ffnn_cpu.Persia):
    def __init__(self, program: str, type_name: str, threads: int, seconds: float):
        super().__init__(program, ROWS, threads, seconds)
        self.name = f"DenseTypeStep/{type_name}"

    def sample(self) -> float:
        return self.run(self.name, self.seconds)["real_time"] / 1e3


class PyTorch(ffnn_cpu.PyTorch):
    """Steps and samples as there, of another model on other inputs."""

    def __init__(self, type_name: str, threads: int, seconds: float):
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        self.seconds = seconds
        self.model = TYPES[type_name]()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.loss = nn.BCEWithLogitsLoss()
        self.input = (0.1 * torch.randn(ROWS, FIELDS * DIM)).requires_grad_()
        dense = 0.1 * torch.randn(ROWS, DENSE_COUNT)
        self.forward = lambda embeddings: self.model(embeddings, dense)
        self.labels = torch.randint(0, 2, (ROWS, 1)).float()
        for _ in range(3):
            self.step()


def summary(samples: list[dict]) -> dict:
    seconds = {side: {s["round"]: s["seconds"] for s in samples if s["side"] == side} for side in ("persia", "pytorch")}
    rounds = seconds["persia"].keys() & seconds["pytorch"].keys()
    ratios = sorted(seconds["pytorch"][number] / seconds["persia"][number] for number in rounds)
    result = {side: round(statistics.median(times.values()) * 1e3, 2) for side, times in seconds.items() if times}
    return result | {"roundRatios": [round(ratio, 3) for ratio in ratios]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("type", choices=TYPES)
    parser.add_argument("--program", default=str(ffnn_cpu.ROOT / "out/release/persia_bench"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a sample")
    parser.add_argument("--out", type=pathlib.Path, help="file to append the result to, as a JSON line")
    options = parser.parse_args()
    if not os.access(options.program, os.X_OK):
        sys.exit(f"{options.program} is missing. Build it: cmake --preset release && cmake --build --preset release")
    persia = Persia(options.program, options.type, options.threads, options.seconds)
    samples = ffnn_cpu.measure(persia, PyTorch(options.type, options.threads, options.seconds), options.rounds)
    peak = max(sample["probe"] for sample in samples)
    quiet = summary([s for s in samples if s["probe"] >= ffnn_cpu.QUIET * peak])
    print(f"{options.type}, ms/step: all samples {summary(samples)}; undisturbed {quiet}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"bench": "model_types_cpu", "type": options.type, "cpu": ffnn_cpu.cpu_name(),
                  "commit": ffnn_cpu.commit(), "rows": ROWS, "threads": options.threads, "torch": torch.__version__,
                  "rounds": options.rounds, "all": summary(samples), "undisturbed": quiet}
        with open(options.out, "a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""PyTorch's sparse embedding on the CPU: a peer of the table benchmark, which starts it and asks it for samples.

EmbeddingBag(mode="sum", sparse=True) with one id a bag, and optim.Adagrad over its sparse gradients, on the ids that
the table sees. Weights lie in huge pages (THP_MEM_ALLOC_ENABLE), gradients are set to None, bag offsets are made once.

Prints "ready VERSION" when the rows are there, or "skipped WHY"; then answers each line "OP IDS THREADS SECONDS" with
a JSON line: OP is gather (the forward pass alone) or gather+apply (forward, backward, optimizer step), IDS one of
those given. Calls are small, so more threads may be slower: it samples with one and with THREADS, and the better
counts. Ends at the end of its input.

    npm run bench -- table-show --python /path/to/python3      # needs torch
"""

import argparse
import itertools
import json
import os
import sys
import time
import warnings

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by PyTorch when it allocates

try:
    import torch
except ImportError:
    print(f"skipped torch: {sys.executable} has no torch", flush=True)
    sys.exit(0)


class Embedding:
    """Rows, their optimizer, and streams of calls, gone round for ever."""

    def __init__(self, rows: int, dim: int, batch: int, ids: dict[str, str]):
        torch.manual_seed(1)
        weight = torch.empty(rows, dim).uniform_(-0.01, 0.01)
        self.bag = torch.nn.EmbeddingBag(rows, dim, mode="sum", sparse=True, _weight=weight)
        self.optimizer = torch.optim.Adagrad(self.bag.parameters(), lr=0.01)
        self.streams = {name: itertools.cycle(self.calls_of(path, batch)) for name, path in ids.items()}
        self.offsets = torch.arange(batch)
        self.gradient = torch.full((batch, dim), 0.01)

    @staticmethod
    def calls_of(path: str, batch: int) -> list:
        count = os.path.getsize(path) // 8
        return list(torch.from_file(path, size=count, dtype=torch.int64).clone().split(batch))

    def gather(self, ids: str) -> None:
        with torch.no_grad():
            self.bag(next(self.streams[ids]), self.offsets)

    def gather_apply(self, ids: str) -> None:
        self.bag(next(self.streams[ids]), self.offsets).backward(self.gradient)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def sample(step, batch: int, threads: int, seconds: float) -> float:
    torch.set_num_threads(threads)
    for _ in range(4):  # the other sides ran meanwhile: fill the caches again
        step()
    calls, start = 0, time.perf_counter()
    while True:
        step()
        calls += 1
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return calls * batch / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--dim", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True, help="ids of a call")
    parser.add_argument("--ids", action="append", required=True, help="NAME=FILE of int64 ids in calls of --batch")
    options = parser.parse_args()

    warnings.filterwarnings("ignore", message="Sparse invariant checks")  # Adagrad makes its sparse tensors itself
    embedding = Embedding(options.rows, options.dim, options.batch, dict(ids.split("=", 1) for ids in options.ids))
    steps = {"gather": embedding.gather, "gather+apply": embedding.gather_apply}
    print(f"ready {torch.__version__}", flush=True)
    for line in sys.stdin:
        op, ids, threads, seconds = line.split()
        teams = sorted({1, int(threads)})
        rate = max(sample(lambda: steps[op](ids), options.batch, team, float(seconds) / len(teams)) for team in teams)
        print(json.dumps({"side": "torch", "op": op, "rowsPerSecond": round(rate)}), flush=True)


if __name__ == "__main__":
    main()

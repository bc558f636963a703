#!/usr/bin/env python3
"""The reference FFNN on one GPU: a training step of Persia beside the same step of PyTorch, in one run.

Both sides train 429-4096-2048-1024-512-256-1 (416 embedding and 13 dense inputs, binary cross-entropy, Adam) in bf16
with fp32 master weights, and compute the gradient of the embedding part of the input. PyTorch runs at its best: bf16
autocast, fused Adam, gradients set to None; eager, and compiled with mode="reduce-overhead" (CUDA graphs). PyTorch's
batches lie in the GPU's memory; Persia's come from pinned memory of the host and its embedding gradients go back there.

Samples alternate, in swapped order from round to round; figures are medians. The GEMM ceiling is the best of twenty
8192 x 8192 x 8192 bf16 products on random data.

    python3 bench/peers/ffnn_gpu.py --program out/cuda/persia_gpu_bench --out bench/results/ffnn_gpu.jsonl
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

EMBEDDING_WIDTH, DENSE_COUNT = 416, 13
HIDDEN = [4096, 2048, 1024, 512, 256]


def step_flops(rows: int) -> float:
    widths = [EMBEDDING_WIDTH + DENSE_COUNT, *HIDDEN, 1]
    forward = sum(2.0 * rows * a * b for a, b in zip(widths, widths[1:]))
    return 3 * forward - 2.0 * rows * DENSE_COUNT * HIDDEN[0]


class Torch:
    """One step: forward, backward with the embedding gradient, fused Adam."""

    def __init__(self, rows: int, compiled: bool):
        torch.manual_seed(1)
        layers, width = [], EMBEDDING_WIDTH + DENSE_COUNT
        for out in HIDDEN:
            layers += [torch.nn.Linear(width, out), torch.nn.ReLU()]
            width = out
        self.model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1)).cuda()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.embeddings = torch.randn(rows, EMBEDDING_WIDTH, device="cuda", requires_grad=True)
        self.dense = torch.randn(rows, DENSE_COUNT, device="cuda")
        self.labels = (torch.rand(rows, 1, device="cuda") < 0.5).float()
        self.loss = torch.compile(self.forward, mode="reduce-overhead") if compiled else self.forward

    def forward(self, embeddings, dense, labels):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = self.model(torch.cat([embeddings, dense], dim=1))
        return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels)

    def step(self):
        torch.compiler.cudagraph_mark_step_begin()
        self.embeddings.grad = None
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.embeddings, self.dense, self.labels).backward()
        self.optimizer.step()

    def sample(self, seconds: float) -> float:
        """Mean milliseconds a step over about `seconds`."""
        for _ in range(5):
            self.step()
        torch.cuda.synchronize()
        steps, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            for _ in range(20):
                self.step()
            torch.cuda.synchronize()
            steps += 20
        return (time.perf_counter() - begin) / steps * 1e3


class Persia:
    """Runs the benchmark program, a process a sample."""

    def __init__(self, program: str, rows: int):
        self.command = [program, "--rows", str(rows)]

    def sample(self, seconds: float) -> float:
        done = subprocess.run([*self.command, "--seconds", str(seconds)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{self.command} failed: {done.stderr}{done.stdout}")
        return json.loads(done.stdout.splitlines()[-1])["ms"]


def gemm_ceiling() -> float:
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(20):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        a @ b
        end.record()
        end.synchronize()
        best = max(best, 2 * 8192**3 / begin.elapsed_time(end) * 1e3)
    return best


def compare(rows: int, options) -> list[dict]:
    sides = {"torch eager": Torch(rows, False), "torch compile": Torch(rows, True)}
    if options.program:
        sides["persia"] = Persia(options.program, rows)
    samples = {name: [] for name in sides}
    for round_ in range(options.rounds):
        for name in sorted(sides, reverse=round_ % 2 == 1):
            samples[name].append(sides[name].sample(options.seconds))
    ceiling = gemm_ceiling()
    lines = []
    for name, ms in samples.items():
        median = statistics.median(ms)
        flops = step_flops(rows) / median * 1e3
        lines.append({
            "bench": "ffnn_gpu", "side": name, "rows": rows, "ms": round(median, 4), "least": round(min(ms), 4),
            "most": round(max(ms), 4), "samplesPerSecond": round(rows / median * 1e3), "flops": flops,
            "ceiling": ceiling, "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
        })
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", help="Persia's side; without it PyTorch alone is measured")
    parser.add_argument("--rows", type=int, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one sample")
    parser.add_argument("--out", help="JSON lines are appended here")
    options = parser.parse_args()
    for rows in options.rows:
        lines = compare(rows, options)
        base = {line["side"]: line["ms"] for line in lines}
        for line in lines:
            ratio = base["torch compile"] / line["ms"]
            print(f"{rows:6} {line['side']:16} {line['ms']:8.3f} ms {line['samplesPerSecond'] / 1e6:7.2f} M samples/s "
                  f"{line['flops'] / 1e12:6.0f} TFLOP/s  {line['flops'] / line['ceiling']:5.2f} of the ceiling  "
                  f"{ratio:5.2f} x compile", flush=True)
        if options.out:
            with open(options.out, "a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The reference FFNN on the CPU: a training step of Persia beside the same step of PyTorch, in one run.

Both sides train 429-4096-2048-1024-512-256-1 (416 embedding and 13 dense inputs, binary cross-entropy, Adam) on batches
of --rows (1024) with the same number of threads, and compute the gradient of the embedding part of the input. With
--precision bf16 Persia multiplies in bf16 and PyTorch runs forward and loss under torch.autocast("cpu",
torch.bfloat16); weights and Adam are fp32 on both sides. PyTorch runs at its best: fused Adam, gradients set to None,
transparent huge pages for its tensors.

Samples alternate, in swapped order from round to round. Before and after each sample runs a probe (FMA chains, or dot
products of bf16, in registers); a sample counts as undisturbed when both show at least 90 % of the run's best.

    cmake --preset release && cmake --build --preset release
    python3 bench/peers/ffnn_cpu.py --out bench/results/ffnn_cpu.jsonl      # needs torch
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by PyTorch when it allocates

import torch  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
EMBEDDING_WIDTH, DENSE_COUNT = 416, 13
HIDDEN = [4096, 2048, 1024, 512, 256]
QUIET = 0.9


def step_flops(rows: int) -> float:
    widths = [EMBEDDING_WIDTH + DENSE_COUNT, *HIDDEN, 1]
    forward = sum(2.0 * rows * a * b for a, b in zip(widths, widths[1:]))
    return 3 * forward - 2.0 * rows * DENSE_COUNT * HIDDEN[0]


class Persia:
    """Runs the micro benchmark program, a process a sample."""

    def __init__(self, program: str, rows: int, threads: int, seconds: float, precision: str):
        self.program, self.rows, self.seconds = program, rows, seconds
        self.step, self.peak = ("DenseStep", "FmaPeak") if precision == "fp32" else ("DenseStepBf16", "Bf16Peak")
        self.unit = None
        self.environment = {**os.environ, "PERSIA_BENCH_THREADS": str(threads)}

    def run(self, name: str, seconds: float) -> dict:
        options = [f"--benchmark_filter=^{name}/", f"--benchmark_min_time={seconds}", "--benchmark_format=json"]
        done = subprocess.run([self.program, *options], env=self.environment, check=True, capture_output=True)
        result = json.loads(done.stdout)["benchmarks"][0]
        if result.get("error_occurred"):
            sys.exit(f"{name} refused to run: {result['error_message']}")
        return result

    def sample(self) -> float:
        result = self.run(f"{self.step}/rows:{self.rows}", self.seconds)
        self.unit = result.get("label")
        return result["real_time"] / 1e3

    def probe(self) -> float:
        return self.run(self.peak, 0.1)["FLOP/s"]


class PyTorch:
    """The same step with torch.nn, warm from the first sample on."""

    def __init__(self, rows: int, threads: int, seconds: float, compiled: bool, precision: str):
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        self.seconds, self.bf16 = seconds, precision == "bf16"
        layers, width = [], EMBEDDING_WIDTH + DENSE_COUNT
        for hidden in HIDDEN:
            layers += [torch.nn.Linear(width, hidden), torch.nn.ReLU()]
            width = hidden
        self.model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.forward = torch.compile(self.model) if compiled else self.model
        self.loss = torch.nn.BCEWithLogitsLoss()
        self.input = torch.randn(rows, EMBEDDING_WIDTH + DENSE_COUNT, requires_grad=True)
        self.labels = torch.randint(0, 2, (rows, 1)).float()
        for _ in range(3):
            self.step()

    def step(self) -> None:
        self.input.grad = None
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.loss(self.forward(self.input), self.labels)
        loss.backward()
        self.optimizer.step()

    def sample(self) -> float:
        self.step()  # the other side ran meanwhile: fill the caches again
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < self.seconds:
            self.step()
            steps += 1
        return (time.perf_counter() - start) / steps


def measure(persia: Persia, peer: PyTorch, rounds: int) -> list[dict]:
    samples, before = [], persia.probe()
    for number in range(rounds):
        sides = [("persia", persia), ("pytorch", peer)]
        for name, side in sides if number % 2 == 0 else reversed(sides):
            seconds, after = side.sample(), persia.probe()
            probe = min(before, after)
            samples.append({"round": number, "side": name, "seconds": seconds, "probe": probe})
            print(f"  round {number + 1:2d}  {name:8s} {seconds * 1e3:8.1f} ms   probe {probe / 1e9:5.0f} GFLOP/s")
            before = after
    return samples


def summary(rows: int, seconds: list[float]) -> dict:
    median = statistics.median(seconds)
    return {
        "samples": len(seconds),
        "msPerStep": round(median * 1e3, 2),
        "msMin": round(min(seconds) * 1e3, 2),
        "msMax": round(max(seconds) * 1e3, 2),
        "samplesPerSecond": round(rows / median),
        "gflops": round(step_flops(rows) / median / 1e9, 1),
    }


def report(title: str, rows: int, samples: list[dict], peak: float) -> dict | None:
    sides = {name: [s["seconds"] for s in samples if s["side"] == name] for name in ("persia", "pytorch")}
    if min(map(len, sides.values())) == 0:
        print(f"{title}: no sample of one side")
        return None
    result = {name: summary(rows, seconds) for name, seconds in sides.items()}
    print(f"{title}:")
    for name, s in result.items():
        print(f"  {name:8s} {s['msPerStep']:8.1f} ms/step ({s['msMin']:.1f} … {s['msMax']:.1f}, {s['samples']} samples)"
              f"  {s['samplesPerSecond']:6d} samples/s"
              f"  {s['gflops']:6.1f} GFLOP/s = {s['gflops'] * 1e9 / peak:.0%} of peak")
    result["ratio"] = round(result["pytorch"]["msPerStep"] / result["persia"]["msPerStep"], 3)
    # A round's sides were measured next to each other: its own ratio is free of slower changes of the machine.
    by_round = {name: {s["round"]: s["seconds"] for s in samples if s["side"] == name} for name in sides}
    both = by_round["persia"].keys() & by_round["pytorch"].keys()
    ratios = sorted(by_round["pytorch"][number] / by_round["persia"][number] for number in both)
    if not ratios:
        return result
    result["roundRatios"] = [round(ratio, 3) for ratio in ratios]
    print(f"  persia / pytorch: {result['ratio']:.2f}x by medians; by rounds {statistics.median(ratios):.2f}x"
          f" ({ratios[0]:.2f} … {ratios[-1]:.2f})")
    return result


def commit() -> str:
    if shutil.which("git") is None:
        return "unknown"
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def cpu_name() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(ROOT / "out/release/persia_bench"), help="the micro benchmark program")
    parser.add_argument("--rows", type=int, default=1024, choices=[1024, 4096], help="of a batch")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"], help="of the products")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=9, help="alternations, at least 5")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a sample")
    parser.add_argument("--compile", action="store_true", help="PyTorch's forward and backward through torch.compile")
    parser.add_argument("--out", type=pathlib.Path, help="file to append the result to, as a JSON line")
    options = parser.parse_args()
    if options.rounds < 5:
        parser.error("--rounds must be at least 5")
    if not os.access(options.program, os.X_OK):
        sys.exit(f"{options.program} is missing. Build it: cmake --preset release && cmake --build --preset release")

    print(f"{cpu_name()}, {options.threads} threads, PyTorch {torch.__version__}, commit {commit()}")
    persia = Persia(options.program, options.rows, options.threads, options.seconds, options.precision)
    peer = PyTorch(options.rows, options.threads, options.seconds, options.compile, options.precision)
    samples = measure(persia, peer, options.rounds)
    peak = max(sample["probe"] for sample in samples)
    print(f"{persia.unit or 'FMA'} peak (physical bound): {peak / 1e9:.0f} GFLOP/s,"
          f" {step_flops(options.rows) / peak * 1e3:.1f} ms/step")
    every = report("all samples", options.rows, samples, peak)
    quiet = report("undisturbed samples", options.rows, [s for s in samples if s["probe"] >= QUIET * peak], peak)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"bench": "ffnn_cpu", "cpu": cpu_name(), "commit": commit(), "rows": options.rows,
                  "threads": options.threads, "precision": options.precision, "unit": persia.unit,
                  "torch": torch.__version__, "compiled": options.compile,
                  "rounds": options.rounds, "peakGflops": round(peak / 1e9, 1), "all": every, "undisturbed": quiet}
        with open(options.out, "a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes row_optimizer_golden.txt: embedding rows after a series of gradients, by PyTorch's optimizers in float32.

Run from anywhere with torch installed: python3 row_optimizer_golden.py
Format: test/native/golden.h. For each case: NAME.start (dim), NAME.gradients (steps, dim), NAME.rows (4, row width)
after the steps of KEPT, where a row is the embedding and its optimizer state as cpp/table/row_optimizer.h lays them out.

Hyper-parameters are rounded to float32 first, because the C++ config holds floats. Torch has no row-wise Adagrad; it is
written out here as FBGEMM defines it (one accumulator a row, which grows by the mean of the squared gradient).
"""
import pathlib
import struct

import torch

STEPS = 24
KEPT = (1, 2, 8, 24)
DIMS = (5, 8, 16, 19)


def f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


class RowwiseAdagrad(torch.optim.Optimizer):
    def __init__(self, params, lr, initial_accumulator_value, weight_decay, eps):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, eps=eps))
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["sum"] = torch.full((1,), initial_accumulator_value)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                gradient = p.grad + group["weight_decay"] * p
                total = self.state[p]["sum"]
                total += gradient.pow(2).mean()
                p -= group["lr"] * gradient / (total.sqrt() + group["eps"])


def sgd(params, **options):
    return torch.optim.SGD(params, lr=f32(0.1), **options)


def adagrad(params, **options):
    return torch.optim.Adagrad(params, lr=f32(0.05), eps=f32(1e-10), **options)


def rowwise_adagrad(params, **options):
    defaults = dict(initial_accumulator_value=0.0, weight_decay=0.0)
    return RowwiseAdagrad(params, lr=f32(0.05), eps=f32(1e-10), **{**defaults, **options})


def adam(params, **options):
    return torch.optim.Adam(params, lr=f32(0.01), betas=(f32(0.9), f32(0.999)), eps=f32(1e-8), foreach=False, **options)


START_DECAY = {"initial_accumulator_value": f32(0.1), "weight_decay": f32(0.02)}

# Name: optimizer, options, and what of its state stands behind the embedding.
CASES = {
    "sgd": (sgd, {}, []),
    "sgd_decay": (sgd, {"weight_decay": f32(0.02)}, []),
    "sgd_momentum": (sgd, {"momentum": f32(0.9)}, ["momentum_buffer"]),
    "sgd_momentum_decay": (sgd, {"momentum": f32(0.9), "weight_decay": f32(0.02)}, ["momentum_buffer"]),
    "adagrad": (adagrad, {}, ["sum"]),
    "adagrad_start_decay": (adagrad, START_DECAY, ["sum"]),
    "rowwise": (rowwise_adagrad, {}, ["sum"]),
    "rowwise_start_decay": (rowwise_adagrad, START_DECAY, ["sum"]),
    "adam": (adam, {}, ["exp_avg", "exp_avg_sq", "step"]),
    "adam_decay": (adam, {"weight_decay": f32(0.02)}, ["exp_avg", "exp_avg_sq", "step"]),
}


def line(name, tensor):
    values = " ".join("%.9g" % value for value in tensor.flatten().tolist())
    return f"{name} {' '.join(map(str, tensor.shape))} : {values}\n"


def run(name, make, options, state_names, dim):
    start = torch.randn(dim) * 0.1
    gradients = torch.randn(STEPS, dim) * 0.5
    weight = torch.nn.Parameter(start.clone())
    optimizer = make([weight], **options)
    rows = []
    for step, gradient in enumerate(gradients, start=1):
        weight.grad = gradient.clone()
        optimizer.step()
        if step not in KEPT:
            continue
        state = [optimizer.state[weight][key].reshape(-1) for key in state_names]
        rows.append(torch.cat([weight.detach().clone(), *state]))
    return [
        line(f"{name}.{dim}.start", start),
        line(f"{name}.{dim}.gradients", gradients),
        line(f"{name}.{dim}.rows", torch.stack(rows)),
    ]


def main():
    torch.manual_seed(7)
    lines = ["# Made by row_optimizer_golden.py with PyTorch; do not edit.\n"]
    for name, (make, options, state_names) in CASES.items():
        for dim in DIMS:
            lines += run(name, make, options, state_names, dim)
    pathlib.Path(__file__).with_suffix(".txt").write_text("".join(lines))


if __name__ == "__main__":
    main()

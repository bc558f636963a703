#!/usr/bin/env python3
"""Writes row_optimizer_golden.txt: embedding rows after a series of gradients, by PyTorch's optimizers in float32.

Run from anywhere with torch installed: python3 row_optimizer_golden.py
Format: test/native/golden.h. For each case: NAME.start (dim), NAME.gradients (steps, dim), NAME.rows (4, row width)
after the steps of KEPT; a row is the embedding and its optimizer state as cpp/table/row_optimizer.h lays them out.

Hyper-parameters are rounded to float32 first, because the C++ config holds floats. Torch has no row-wise Adagrad; it is
written out here as FBGEMM defines it (one accumulator a row, which grows by the mean of the squared gradient). Nor has
it FTRL-Proximal, and its SparseAdam adds eps elsewhere than Adam does: both are written out in float64.
"""
import math
import pathlib
import struct

import torch

STEPS = 24
KEPT = (1, 2, 8, 24)
DIMS = (5, 8, 16, 19)
FEW_DIMS = (5, 16)
BOUND = 0.15  # of the cases with a weight bound
# Steps of the feature group that touch the row of the cases "*_rare"; KEPT then counts the touches.
TOUCHED = [step for step in range(1, 3 * STEPS) if step % 3 == 0 or step % 7 == 0][:STEPS]


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


def adamw(params, **options):
    betas = (f32(0.9), f32(0.999))
    return torch.optim.AdamW(params, lr=f32(0.01), betas=betas, eps=f32(1e-8), foreach=False, **options)


class RareAdam(torch.optim.Optimizer):
    """Adam of a row that only some of its group's steps touch: what is not touched stays, but the steps count."""

    def __init__(self, params, weight_decay=0.0, decoupled=False):
        super().__init__(params, dict(weight_decay=weight_decay, decoupled=decoupled))
        self.touches = 0
        for group in self.param_groups:
            for p in group["params"]:
                p.data = p.data.double()
                self.state[p] = {"exp_avg": torch.zeros_like(p.data), "exp_avg_sq": torch.zeros_like(p.data)}

    @torch.no_grad()
    def step(self):
        lr, beta1, beta2, eps = f32(0.01), f32(0.9), f32(0.999), f32(1e-8)
        t = TOUCHED[self.touches]
        self.touches += 1
        for group in self.param_groups:
            for p in group["params"]:
                gradient = p.grad.double()
                if group["decoupled"]:
                    p *= 1 - lr * group["weight_decay"]
                else:
                    gradient = gradient + group["weight_decay"] * p
                m, v = self.state[p]["exp_avg"], self.state[p]["exp_avg_sq"]
                m.mul_(beta1).add_((1 - beta1) * gradient)
                v.mul_(beta2).add_((1 - beta2) * gradient**2)
                p -= lr / (1 - beta1**t) * m / ((v / (1 - beta2**t)).sqrt() + eps)


class Ftrl(torch.optim.Optimizer):
    """FTRL-Proximal per coordinate, algorithm 1 of McMahan et al. 2013, with z started to give the first weights."""

    def __init__(self, params, lr=0.1, beta=1.0, l1=0.0, l2=0.0, initial_accumulator=0.0, weight_decay=0.0):
        options = dict(lr=f32(lr), beta=f32(beta), l1=f32(l1), l2=f32(l2), weight_decay=f32(weight_decay))
        super().__init__(params, options)
        for group in self.param_groups:
            for p in group["params"]:
                p.data = p.data.double()
                n = torch.full_like(p.data, f32(initial_accumulator))
                divisor = (group["beta"] + n.sqrt()) / group["lr"] + group["l2"]
                z = -p.data * divisor - p.data.sign() * group["l1"]
                self.state[p] = {"z": z, "n": n}

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, l1 = group["lr"], group["l1"]
            for p in group["params"]:
                z, n = self.state[p]["z"], self.state[p]["n"]
                gradient = p.grad.double() + group["weight_decay"] * p
                z += gradient - ((n + gradient**2).sqrt() - n.sqrt()) / lr * p
                n += gradient**2
                weights = -(z - z.sign() * l1) / ((group["beta"] + n.sqrt()) / lr + group["l2"])
                p.copy_(torch.where(z.abs() <= l1, 0.0, weights))


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
MOMENTS = ["exp_avg", "exp_avg_sq"]
DECAY = {"weight_decay": f32(0.02)}
FTRL_ALL = {"beta": 0.5, "l1": 0.3, "l2": 0.2, "initial_accumulator": 0.1, "weight_decay": 0.02}
FEW_DIMS_CASES = {
    "adamw": (adamw, {"weight_decay": f32(0.2)}, [*MOMENTS, "step"]),
    "adam_group": (adam, {}, MOMENTS),
    "adam_group_decay": (adam, DECAY, MOMENTS),
    "adamw_group": (adamw, {"weight_decay": f32(0.2)}, MOMENTS),
    "adam_rare": (RareAdam, {}, MOMENTS),
    "adamw_rare": (RareAdam, {"weight_decay": f32(0.2), "decoupled": True}, MOMENTS),
    "ftrl": (Ftrl, {}, ["z", "n"]),
    "ftrl_l1": (Ftrl, {"l1": 1.0}, ["z", "n"]),
    "ftrl_all": (Ftrl, FTRL_ALL, ["z", "n"]),
    "sgd_bound": (sgd, {}, []),
    "sgd_momentum_bound": (sgd, {"momentum": f32(0.9), **DECAY}, ["momentum_buffer"]),
    "adagrad_bound": (adagrad, START_DECAY, ["sum"]),
    "rowwise_bound": (rowwise_adagrad, START_DECAY, ["sum"]),
    "adam_bound": (adam, {}, [*MOMENTS, "step"]),
    "adamw_bound": (adamw, {"weight_decay": f32(0.2)}, [*MOMENTS, "step"]),
    "ftrl_bound": (Ftrl, FTRL_ALL, ["z", "n"]),
}
WIDE_CASES = {"rowwise_start_decay": CASES["rowwise_start_decay"]}  # the sum over a row is the width's own


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
        weight.grad = gradient.to(weight.dtype, copy=True)
        optimizer.step()
        if name.endswith("_bound"):
            weight.data.clamp_(-f32(BOUND), f32(BOUND))
        if step not in KEPT:
            continue
        state = [optimizer.state[weight][key].reshape(-1) for key in state_names]
        rows.append(torch.cat([weight.detach().clone(), *state]))
    return [
        line(f"{name}.{dim}.start", start),
        line(f"{name}.{dim}.gradients", gradients),
        line(f"{name}.{dim}.rows", torch.stack(rows)),
    ]


def check_against_sparse_adam():
    """RareAdam is torch.optim.SparseAdam with a tiny eps, over the group's steps of which only some touch row 0."""
    table = torch.nn.Parameter(torch.randn(2, 4, dtype=torch.float64) * 0.1)
    row = torch.nn.Parameter(table.data[0].clone())
    sparse = torch.optim.SparseAdam([table], lr=f32(0.01), betas=(f32(0.9), f32(0.999)), eps=f32(1e-8))
    rare = RareAdam([row])
    for step in range(1, TOUCHED[-1] + 1):
        gradient = torch.randn(1, 4, dtype=torch.float64)
        index = 0 if step in TOUCHED else 1
        table.grad = torch.sparse_coo_tensor([[index]], gradient, (2, 4))
        sparse.step()
        if index == 0:
            row.grad = gradient[0]
            rare.step()
    assert math.isclose((table.data[0] - row.data).abs().max(), 0, abs_tol=1e-6)


def main():
    torch.manual_seed(7)
    lines = ["# Made by row_optimizer_golden.py with PyTorch; do not edit.\n"]
    for name, (make, options, state_names) in CASES.items():
        for dim in DIMS:
            lines += run(name, make, options, state_names, dim)
    for cases, dims in ((FEW_DIMS_CASES, FEW_DIMS), (WIDE_CASES, (32, 64))):
        for name, (make, options, state_names) in cases.items():
            for dim in dims:
                lines += run(name, make, options, state_names, dim)
    check_against_sparse_adam()
    pathlib.Path(__file__).with_suffix(".txt").write_text("".join(lines))


if __name__ == "__main__":
    main()

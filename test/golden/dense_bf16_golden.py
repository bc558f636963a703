#!/usr/bin/env python3
"""Makes dense_bf16.txt: 100 training steps of a small network in PyTorch, in fp32 and under CPU bf16 autocast.

Run it with torch installed: python3 test/golden/dense_bf16_golden.py
The format is described in test/native/golden.h. Weights start from values given in the file, not from an initializer.
"""

import pathlib

import torch

STEPS, BATCHES, ROWS = 100, 4, 48
EMBEDDING_WIDTH, DENSE_COUNT, HIDDEN = 16, 3, [40, 24]


def write(file, name: str, tensor: torch.Tensor) -> None:
    shape = " ".join(str(size) for size in tensor.shape)
    values = " ".join("%.9g" % value for value in tensor.detach().float().flatten().tolist())
    file.write(f"{name} {shape} : {values}\n")


def network() -> torch.nn.Sequential:
    torch.manual_seed(2)
    layers, width = [], EMBEDDING_WIDTH + DENSE_COUNT
    for hidden in HIDDEN:
        layers += [torch.nn.Linear(width, hidden), torch.nn.ReLU()]
        width = hidden
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))


def train(file, name: str, bf16: bool, inputs, labels) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    losses = []
    for step in range(STEPS):
        x = inputs[step % BATCHES].clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x).float(), labels[step % BATCHES])
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            write(file, f"{name}.embedding_gradient", x.grad[:, :EMBEDDING_WIDTH])
        optimizer.step()
        losses.append(loss.detach())
    write(file, f"{name}.losses", torch.stack(losses))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        write(file, f"{name}.predictions", torch.sigmoid(model(inputs[0]).float()))
    for index, layer in enumerate(layer for layer in model if isinstance(layer, torch.nn.Linear)):
        write(file, f"{name}.layer.{index}.weight", layer.weight)
        write(file, f"{name}.layer.{index}.bias", layer.bias)


def main() -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    inputs = torch.randn(BATCHES, ROWS, EMBEDDING_WIDTH + DENSE_COUNT)
    teacher = torch.randn(EMBEDDING_WIDTH + DENSE_COUNT, 1)
    labels = torch.bernoulli(torch.sigmoid(2 * torch.tanh(inputs @ teacher)))
    with open(pathlib.Path(__file__).parent / "dense_bf16.txt", "w") as file:
        file.write("# Made by dense_bf16_golden.py with PyTorch " + torch.__version__.split("+")[0] + "\n")
        write(file, "inputs", inputs)
        write(file, "labels", labels)
        for index, layer in enumerate(layer for layer in network() if isinstance(layer, torch.nn.Linear)):
            write(file, f"start.layer.{index}.weight", layer.weight)
            write(file, f"start.layer.{index}.bias", layer.bias)
        train(file, "fp32", False, inputs, labels)
        train(file, "bf16", True, inputs, labels)


main()

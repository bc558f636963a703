"""Makes metrics_golden.txt: AUC, log loss, calibration and GAUC of random predictions, from their definitions.

AUC counts all pairs of a positive and a negative one by one, log loss is PyTorch's binary cross-entropy in float64.
The format is described in test/native/golden.h.
"""

import pathlib

import torch

SAMPLES, GROUPS = 400, 60


def write(file, name: str, tensor: torch.Tensor) -> None:
    shape = " ".join(str(size) for size in tensor.shape)
    values = " ".join("%.9g" % value for value in tensor.flatten().tolist())
    file.write(f"{name} {shape} : {values}\n")


def auc(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """NaN without both classes."""
    difference = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return ((difference > 0).double() + 0.5 * (difference == 0).double()).mean()


def main() -> None:
    torch.manual_seed(3)
    scores = (torch.sigmoid(torch.randn(SAMPLES) - 1) * 50).round() / 50  # with ties, also at 0
    labels = torch.bernoulli(scores * 0.9 + 0.02)
    groups = (torch.rand(SAMPLES) ** 2 * GROUPS).long()  # of unequal size
    by_group = [(auc(scores[groups == g], labels[groups == g]), (groups == g).sum()) for g in groups.unique()]
    kept = [(value, count) for value, count in by_group if not value.isnan()]
    samples = sum(count for _, count in kept)
    clamped = scores.double().clamp(1e-7, 1 - 1e-7)
    with open(pathlib.Path(__file__).parent / "metrics_golden.txt", "w") as file:
        file.write("# Made by metrics_golden.py with PyTorch " + torch.__version__.split("+")[0] + "\n")
        write(file, "scores", scores)
        write(file, "labels", labels)
        write(file, "groups", groups)
        write(file, "auc", auc(scores, labels))
        write(file, "logloss", torch.nn.functional.binary_cross_entropy(clamped, labels.double()))
        write(file, "calibration", scores.double().mean() / labels.double().mean())
        write(file, "gauc", sum(value * count for value, count in kept) / samples)
        write(file, "gauc_groups", torch.tensor(len(kept)))
        write(file, "gauc_one_class", torch.tensor(len(by_group) - len(kept)))
        write(file, "gauc_samples", samples)


main()

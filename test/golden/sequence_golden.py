#!/usr/bin/env python3
"""Makes sequence_training.txt: training steps in PyTorch of a network on an unpooled sequence with its mask, a plain id
feature and dense columns, where the sequence's rows are trained too.

Run it with torch installed: python3 test/golden/sequence_golden.py
The format is described in test/native/golden.h. Ids are 1, 2, …; samples have 0 to 5 in their sequence, of which the
last three count. Those of sample i are ids[offsets[i]] to ids[offsets[i + 1] - 1].
"""

import pathlib

import torch

STEPS, BATCHES, ROWS = 24, 3, 10
IDS, DIM, LENGTH, DENSE_COUNT, HIDDEN = 7, 3, 3, 2, 8
ROW_LR, LR = 0.5, 0.1


def write(file, name: str, tensor: torch.Tensor) -> None:
    shape = " ".join(str(size) for size in tensor.shape)
    values = " ".join("%.9g" % value for value in tensor.detach().flatten().tolist())
    file.write(f"{name} {shape} : {values}\n")


def places(sequences):
    """(rows, LENGTH) ids and masks; 0 stands for no id."""
    last = [sequence[-LENGTH:] for sequence in sequences]
    ids = torch.tensor([sequence + [0] * (LENGTH - len(sequence)) for sequence in last])
    return ids, (ids > 0).float()


def inputs(tables, sequences, users, dense):
    ids, mask = places(sequences)
    vectors = torch.nn.functional.embedding(ids, tables["visited"]) * mask.unsqueeze(2)
    user = torch.nn.functional.embedding(users, tables["user"])
    return torch.cat([vectors.flatten(1), user, dense, mask], 1)


def main() -> None:
    torch.manual_seed(5)
    torch.set_num_threads(1)
    counts = torch.randint(0, 6, (BATCHES, ROWS))
    sequences = [[torch.randint(1, IDS + 1, (int(count),)).tolist() for count in batch] for batch in counts]
    users = torch.randint(1, IDS + 1, (BATCHES, ROWS))
    dense = torch.randn(BATCHES, ROWS, DENSE_COUNT)
    # How much of a sequence there is matters, so that the mask is learnt from.
    labels = ((counts > 2) == (users > 3)).float()
    tables = {name: torch.randn(IDS + 1, DIM, requires_grad=True) for name in ("visited", "user")}
    model = torch.nn.Sequential(torch.nn.Linear((LENGTH + 1) * DIM + DENSE_COUNT + LENGTH, HIDDEN), torch.nn.ReLU(),
                                torch.nn.Linear(HIDDEN, 1))
    with open(pathlib.Path(__file__).parent / "sequence_training.txt", "w") as file:
        file.write("# Made by sequence_golden.py with PyTorch " + torch.__version__.split("+")[0] + "\n")
        for batch in range(BATCHES):
            offsets = [0] + torch.tensor([len(sequence) for sequence in sequences[batch]]).cumsum(0).tolist()
            write(file, f"batch.{batch}.offsets", torch.tensor(offsets))
            write(file, f"batch.{batch}.ids", torch.tensor(sum(sequences[batch], [])))
            write(file, f"batch.{batch}.users", users[batch])
            write(file, f"batch.{batch}.dense", dense[batch])
            write(file, f"batch.{batch}.labels", labels[batch])
        state = [(f"rows.{name}", table) for name, table in tables.items()]
        state += [(f"layer.{i}.{part}", getattr(model[2 * i], part)) for i in (0, 1) for part in ("weight", "bias")]
        for name, tensor in state:
            write(file, f"start.{name}", tensor)
        optimizer = torch.optim.SGD([{"params": list(tables.values()), "lr": ROW_LR}, {"params": model.parameters()}], LR)
        losses = []
        for step in range(STEPS):
            batch = step % BATCHES
            logits = model(inputs(tables, sequences[batch], users[batch], dense[batch]))[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        write(file, "losses", torch.stack(losses))
        for name, tensor in state:
            write(file, f"end.{name}", tensor)
        logits = model(inputs(tables, sequences[0], users[0], dense[0]))[:, 0]
        write(file, "predictions", torch.sigmoid(logits))


main()

"""Reads a tab-separated file without header with pandas and polars, on one thread; CPU seconds of each round as JSON.

    python3 read_tsv.py FILE ROUNDS
"""
import json
import os
import resource
import sys

os.environ["POLARS_MAX_THREADS"] = "1"


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def with_pandas(path):
    import pandas

    return lambda: pandas.read_csv(path, sep="\t", header=None)


def with_polars(path):
    import polars

    return lambda: polars.read_csv(path, separator="\t", has_header=False, infer_schema_length=10_000)


def main():
    path, rounds = sys.argv[1], int(sys.argv[2])
    for name, make in {"pandas: text read": with_pandas, "polars: text read": with_polars}.items():
        try:
            read = make(path)
        except ImportError:
            print(json.dumps({"name": name, "skipped": "not installed"}))
            continue
        seconds = []
        for _ in range(rounds):
            before = cpu_seconds()
            read()
            seconds.append(cpu_seconds() - before)
        print(json.dumps({"name": name, "seconds": seconds}))


main()

"""Writes the Arrow files of test/fuzz/corpus/fuzz_arrow_file: the same table in every form that writers use.

    pip install pyarrow polars
    python3 test/golden/arrow_golden.py test/fuzz/corpus/fuzz_arrow_file

test/ts/data-arrow.test.ts holds what is in the table.
"""
import datetime
import sys
from pathlib import Path

import polars
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc

out = Path(sys.argv[1])
ROWS = 100


def row(i):
    return {
        "click": i % 3 == 0,
        "user": None if i % 7 == 0 else f"user-{i}-with-a-long-name" if i % 2 else f"u{i}",
        "city": None if i % 11 == 0 else ["Zürich", "Bern", "a city with a long name"][i % 3],
        "tags": None if i % 5 == 0 else [None if (i + j) % 4 == 3 else f"t{(i + j) % 9}" for j in range(i % 4)],
        "item": (i - 50) * 10**14,
        "age": None if i % 13 == 0 else i / 4,
        "score": i * 2.5,
        "day": datetime.date(2024, 2, 25) + datetime.timedelta(days=i % 10),
        "seen": datetime.datetime(1969, 12, 31, 23, 59, 58) + datetime.timedelta(milliseconds=250 * i),
    }


SCHEMA = pa.schema([
    ("click", pa.bool_()), ("user", pa.string()), ("city", pa.dictionary(pa.int8(), pa.string())),
    ("tags", pa.list_(pa.string())), ("item", pa.int64()), ("age", pa.float32()), ("score", pa.float64()),
    ("day", pa.date32()), ("seen", pa.timestamp("ms")),
])
table = pa.Table.from_pylist([row(i) for i in range(ROWS)], schema=SCHEMA)


def write(name, open_writer, written, **options):
    with open_writer(str(out / name), written.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in written.to_batches(max_chunksize=30):
            writer.write_batch(batch)


def with_columns(**columns):
    changed = table
    for name, column in columns.items():
        changed = changed.set_column(changed.schema.get_field_index(name), name, column)
    return changed


large = with_columns(
    user=table["user"].cast(pa.large_string()), tags=table["tags"].cast(pa.large_list(pa.large_string())),
    age=table["age"].cast(pa.float64()), seen=table["seen"].cast(pa.timestamp("ns")),
    click=table["click"].cast(pa.uint8()), city=table["city"].cast(pa.string()))
write("plain.arrow", pa.ipc.new_file, table)
write("large.arrow", pa.ipc.new_file, large)
write("lz4.arrow", pa.ipc.new_file, table, compression="lz4")
write("zstd.arrow", pa.ipc.new_file, table, compression="zstd")
write("stream.arrows", pa.ipc.new_stream, table)

# Every batch of these has a dictionary of its own: as another one in a stream, as more values in a file.
parts = []
for i in range(0, ROWS, 25):
    cities = [row(j)["city"] for j in range(i, i + 25)]
    names = ["Zürich", "Bern", "a city with a long name"]
    parts.append((i, cities, names[(i // 25) % 3:] + names[:(i // 25) % 3]))


def batches(dictionary_of):
    for number, (i, cities, names) in enumerate(parts):
        dictionary = dictionary_of(number, names)
        places = pa.array([None if city is None else dictionary.index(city) for city in cities], pa.int8())
        city = pa.DictionaryArray.from_arrays(places, pa.array(dictionary, pa.string()))
        yield table.slice(i, 25).combine_chunks().to_batches()[0].set_column(2, SCHEMA.field(2), city)


def names_so_far(number):
    return ["Bern", "Zürich", "a city with a long name"] + [f"more {n}" for n in range(number)]


with pa.ipc.new_stream(str(out / "replaced.arrows"), SCHEMA) as writer:
    for batch in batches(lambda number, names: names):
        writer.write_batch(batch)
options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
with pa.ipc.new_stream(str(out / "delta.arrows"), SCHEMA, options=options) as writer:
    for batch in batches(lambda number, names: names_so_far(number)):
        writer.write_batch(batch)

# Polars: views of texts, categories, large lists.
frame = polars.from_arrow(table)
frame = frame.with_columns(polars.col("city").cast(polars.Categorical))
frame.write_ipc(out / "polars.arrow")
frame.write_ipc(out / "polars-zstd.arrow", compression="zstd")

"""Files of any size: rows read and embedded in memory that does not grow, and found again at once.

    python -m benchmarks.files [--only FIGURE] [--json FILE]

A million rows are read from each kind of file beside Arrow, which is told what the file is, and
100,000 are embedded by a tiny model, so that what is measured is not the model. `pellucid similar`
runs as a user runs it, over 100,000 saved embeddings, its imports done before the clock starts.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # what is needed is installed

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
import torch

from benchmarks.command import run
from benchmarks.heart import Row, duration
from benchmarks.measure import PeakMemory
from pellucid.models import Config, Encoder
from pellucid.tasks import embed, open_encoder, saved_vectors
from pellucid.tasks.embedding import PROBE
from pellucid.tasks.similarity import nearest
from pellucid.tasks.vector_index import nearest_cells
from pellucid.tasks.vector_writing import PARQUET, embed_file, table_schema
from pellucid.text.text_inputs import Source

ROWS, FEW = 1_000_000, 100_000
EMBEDDED = 100_000
SAVED, WIDTH = 100_000, 384
ROUNDS = 3
WORDS = "rain falls on the old river and she sings of light while forty birds leave"
AT_END = "import atexit, json\natexit.register(lambda: print(json.dumps([*sys.modules])))\n"
"""Prints what the process imported."""
IMPORTED = """
import importlib, json, time
for name in json.loads(sys.argv.pop()):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
"""
TIMED = """
start, busy = time.perf_counter(), time.process_time()
try:
    main()
except SystemExit:
    print(time.perf_counter() - start, time.process_time() - busy)
"""
FOLDER = Path(tempfile.gettempdir()) / "pellucid-benchmark-files"


def made(ending: str, number: int) -> Path:
    """A file with so many rows of a number, a text of some ten words and a label."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{number}{ending}"
    if path.exists():
        return path
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS.split(), k=draw.randint(3, 17))) for _ in range(number)]
    columns = {"id": range(number), "text": texts, "label": [n % 3 for n in range(number)]}
    if ending == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=2**16)
    else:
        with path.open("w", encoding="utf-8") as file:
            if ending == ".csv":
                file.write("id,text,label\n")
            for row in zip(*columns.values(), strict=True):
                item = json.dumps(dict(zip(columns, row, strict=True)))
                file.write(f"{item}\n" if ending == ".jsonl" else f'{row[0]},"{row[1]}",{row[2]}\n')
    return path


def reading_csv() -> Iterator[Row]:
    yield _read(".csv", pyarrow.csv.read_csv)


def reading_jsonl() -> Iterator[Row]:
    yield _read(".jsonl", pyarrow.json.read_json)


def reading_parquet() -> Iterator[Row]:
    yield _read(".parquet", pyarrow.parquet.read_table)


def _read(ending: str, peer: Callable[[Path], Any]) -> Row:
    path = made(ending, ROWS)
    extra = []
    for number in (FEW, FEW, ROWS):  # the first time is thrown away
        with PeakMemory() as peak:
            start = time.process_time()
            assert sum(1 for _ in Source(made(ending, number))) == number
            ours = time.process_time() - start
        extra.append(peak.extra)
    start = time.process_time()
    assert peer(path).num_rows == ROWS
    return Row(
        figure="memory of a million rows",
        setting=f"{ending}, over that of {FEW:,} rows",
        ours=f"{duration(ours)} of the processor",
        peer=f"Arrow, all at once {duration(time.process_time() - start)}",
        value=(extra[2] - extra[1]) / 2**20,
        unit="MB",
        bar=16,
    )


def embedding() -> Iterator[Row]:
    model = Encoder(
        Config(kind="encoder", vocabulary=30522, width=8, heads=1, hidden=8, layers=1, positions=64)
    )
    model.tokenizer = open_encoder().tokenizer
    extra = []
    for number in (EMBEDDED // 10, EMBEDDED // 10, EMBEDDED):  # the first time is thrown away
        output = FOLDER / "vectors.parquet"
        source = partial(Source, made(".csv", number))
        with PeakMemory() as peak:
            start = time.process_time()
            embed_file(model, source, output, name=None, overwrite=True)
            seconds = time.process_time() - start
        extra.append(peak.extra)
    yield Row(
        figure="memory of embed -o",
        setting=f"{EMBEDDED:,} rows by a tiny model, over that of a tenth",
        ours=f"{duration(seconds)} of the processor",
        value=(extra[2] - extra[1]) / 2**20,
        unit="MB",
        bar=32,
    )


def similar() -> Iterator[Row]:
    FOLDER.mkdir(exist_ok=True)
    model = open_encoder()
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(SAVED, WIDTH), dim=-1)
    path = FOLDER / "saved.parquet"
    schema = table_schema(WIDTH, None, embed(model, [PROBE])[0], with_file=False)
    flat = pyarrow.array(vectors.numpy().reshape(-1))
    columns = {
        "line": range(1, SAVED + 1),
        "text": [f"text {number}" for number in range(SAVED)],
        "embedding": pyarrow.FixedSizeListArray.from_arrays(flat, WIDTH),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), path, **PARQUET)
    command = ["similar", "forty birds", str(path), "--json", "--top", "10"]
    script = "import sys\nfrom pellucid.cli import main\nsys.argv[0] = 'pellucid'\n"
    said = _ran(f"{script}{AT_END}main()", *command)
    answer, end = json.JSONDecoder().raw_decode(said)
    printed = [_ran(f"{script}{IMPORTED}{TIMED}", *command, said[end:]) for _ in range(ROUNDS)]
    beyond, busy = zip(*(map(float, one.split()[-2:]) for one in printed), strict=True)
    query = embed(model, ["forty birds"])[0].double().numpy()
    scores = vectors.double().numpy() @ query
    wanted = np.argsort(-scores)[:10] + 1
    yield Row(
        figure="similar over saved embeddings",
        setting=f"{SAVED:,} of {WIDTH} numbers, a process a query, beyond its imports",
        ours=f"of the processor {duration(statistics.median(busy))}",
        value=statistics.median(beyond),
        unit="s",
        bar=0.5,
    )
    yield Row(
        figure="similar over saved embeddings",
        setting="of the nearest 10 in float64, found in their order",
        ours="",
        value=float(np.mean([match["line"] for match in answer["matches"]] == wanted)),
        unit="",
        bar=1.0,
        at_least=True,
    )


def indexed() -> Iterator[Row]:
    """The index beside a scan, on vectors in clusters, as embeddings are."""
    torch.manual_seed(0)
    centres = torch.randn(500, WIDTH)
    vectors = centres[torch.randint(500, (SAVED,))] + 0.7 * torch.randn(SAVED, WIDTH)
    FOLDER.mkdir(exist_ok=True)
    np.save(FOLDER / "clusters.npy", vectors.numpy())
    saved = saved_vectors.opened(FOLDER / "clusters.npy")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        start = time.perf_counter()
        nearest_cells(vectors[0], saved, 1)
        made_in = time.perf_counter() - start
        queries = vectors[:: SAVED // 50] + 0.1 * torch.randn(50, WIDTH)
        right, times = [], []
        for query in queries:
            calls = []
            for call in (nearest_cells, lambda q, s, top: nearest(q, s.vectors, top)):
                start = time.perf_counter()
                calls.append({match.index for match in call(query, saved, 10)})
                times.append(time.perf_counter() - start)
            right.append(len(calls[0] & calls[1]) / 10)
    yield Row(
        figure="nearest 10 that the index finds",
        setting=f"{SAVED:,} vectors in clusters; made in {duration(made_in)}",
        ours=f"a query {duration(statistics.median(times[::2]))}",
        peer=f"a scan {duration(statistics.median(times[1::2]))}",
        value=float(np.mean(right)),
        unit="",
        bar=0.95,
        at_least=True,
    )


def _ran(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


SECTIONS = (reading_csv, reading_jsonl, reading_parquet, embedding, similar, indexed)


if __name__ == "__main__":
    run("benchmarks.files", __doc__, f"pyarrow {pyarrow.__version__}", SECTIONS)

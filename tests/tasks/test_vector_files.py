"""Embeddings that are written part by part, and found again in their files."""

import csv
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from pellucid.errors import ArgumentError, FileError, ShapeError
from pellucid.tasks import (
    embed,
    open_encoder,
    saved_vectors,
    similar,
    similarity,
    vector_index,
    vector_writing,
)
from pellucid.tasks.similarity import nearest
from pellucid.tasks.vector_index import nearest_cells
from pellucid.tasks.vector_writing import _Parts
from pellucid.text.text_inputs import Source

TEXTS = [f"The {n}th text is about {word}" for n in range(7) for word in ("rain", "a cat", "soup")]
NAME = "tiny"


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    monkeypatch.setattr(vector_writing, "PART", 5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return open_encoder(str(checkpoint("bert")))


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = [("id", "text"), *enumerate(TEXTS)]
        csv.writer(file).writerows([*rows[:4], (99, " "), *rows[4:]])
    return path


def written(model, texts, output, **options):
    return vector_writing.embed_file(model, partial(Source, texts), output, name=NAME, **options)


def test_parts_make_what_one_call_makes(model, texts, tmp_path):
    array, table = tmp_path / "a.npy", tmp_path / "a.parquet"
    expected = embed(model, TEXTS)
    seen = []
    told = written(model, texts, array, progress=lambda *numbers: seen.append(numbers))
    assert (told.texts, told.width, told.continued) == (21, expected.shape[1], 0)
    assert told.notes == [f"left out 1 empty line of '{texts}': 5"]
    assert seen[-1] == (21, 21)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    torch.testing.assert_close(torch.from_numpy(np.load(array)), expected)
    written(model, texts, table)
    found = pyarrow.parquet.read_table(table).to_pydict()
    assert found["text"] == TEXTS
    assert found["line"][:5] == [2, 3, 4, 6, 7]
    np.testing.assert_array_equal(np.array(found["embedding"], np.float32), np.load(array))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "a.parquet", "texts.csv"]


def test_a_bad_file_of_a_folder_is_left_out_whole(model, texts, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    lines = [*TEXTS[:7], TEXTS[7] + "\xe9"]  # the last is no UTF-8
    (folder / "a.txt").write_bytes("\n".join(lines).encode("latin-1"))
    (folder / "b.txt").write_text("\n".join(TEXTS[3:9]))
    told = written(model, folder, tmp_path / "a.parquet")
    found = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert found["text"] == TEXTS[3:9]
    assert set(found["file"]) == {str(folder / "b.txt")}
    assert told.texts == 6
    assert "left out 1 file" in told.notes[0]
    np.testing.assert_allclose(found["embedding"], embed(model, TEXTS[3:9]), atol=1e-6)


def test_what_was_stopped_goes_on(model, texts, tmp_path, monkeypatch):
    output = tmp_path / "a.parquet"
    calls = []

    def counted(model, batch, **options):
        if len(calls) == 3:  # the probe, and two parts
            raise KeyboardInterrupt
        calls.append(len(batch))
        return embed(model, batch, **options)

    monkeypatch.setattr(vector_writing, "embed", counted)
    with pytest.raises(KeyboardInterrupt):
        written(model, texts, output)
    assert not output.exists()
    calls[:] = []
    monkeypatch.setattr(
        vector_writing,
        "embed",
        lambda model, batch, **options: calls.append(len(batch)) or embed(model, batch, **options),
    )
    begun = []
    assert written(model, texts, output, begun=lambda *told: begun.append(told)).continued == 10
    assert (calls, begun) == ([1, 5, 5, 1], [(10, 21)])
    found = np.array(pyarrow.parquet.read_table(output)["embedding"].to_pylist(), np.float32)
    torch.testing.assert_close(torch.from_numpy(found), embed(model, TEXTS))


@pytest.mark.parametrize("changed", ["texts", "options", "model"])
def test_parts_of_something_else_are_not_used(model, texts, tmp_path, monkeypatch, changed):
    output = tmp_path / "a.npy"
    with monkeypatch.context() as patch:
        patch.setattr(_Parts, "__iter__", lambda _: os.stat("/nowhere/full"))
        with pytest.raises(OSError, match="cannot write"):
            written(model, texts, output)
    options = {}
    if changed == "texts":
        texts.write_text(texts.read_text(encoding="utf-8").replace("rain", "snow"))
    elif changed == "options":
        options = {"truncate_dim": 3}
    else:
        model = open_encoder()
    assert written(model, texts, output, **options).continued == 0
    said = [text.replace("rain", "snow") if changed == "texts" else text for text in TEXTS]
    torch.testing.assert_close(torch.from_numpy(np.load(output)), embed(model, said, **options))


def test_what_is_wrong_at_the_end_is_said_before_the_work(model, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(vector_writing, "embed", pytest.fail)
    with pytest.raises(ArgumentError, match=r"texts.csv' has 1 empty line: 5"):
        written(model, texts, tmp_path / "a.npy", strict=True)
    with texts.open("a") as file:
        file.write("1,2,3\n")
    with pytest.raises(FileError, match=r"line 24 of .* has 3 fields, but its header has 2"):
        written(model, texts, tmp_path / "a.npy")


@pytest.mark.slow
def test_a_killed_process_goes_on(model, texts, tmp_path, checkpoint):
    """`kill -9` in the middle; the next run embeds only what is left."""
    output, parts = tmp_path / "a.npy", tmp_path / ".pellucid-a.npy.parts"
    script = (
        "import sys, time; from functools import partial; from pathlib import Path\n"
        "from pellucid.tasks import open_encoder, vector_writing\n"
        "from pellucid.text.text_inputs import Source\n"
        "vector_writing.PART = 5\n"
        "vector_writing.embed_file(open_encoder(sys.argv[1]), partial(Source, Path(sys.argv[2])),\n"
        "    Path(sys.argv[3]), name='tiny', progress=lambda *_: time.sleep(0.5))\n"
    )
    command = [sys.executable, "-c", script, str(checkpoint("bert")), str(texts), str(output)]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 120
        while not (parts / "00000001.npy").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    assert not output.exists()
    assert written(model, texts, output).continued >= 10
    torch.testing.assert_close(torch.from_numpy(np.load(output)), embed(model, TEXTS))


# Found again


def test_the_nearest_are_those_of_all(monkeypatch):
    monkeypatch.setattr(similarity, "SCANNED", 7)
    torch.manual_seed(3)
    vectors = torch.randn(59, 11)
    vectors[31] = vectors[13] * 2  # as near as the other: the first comes first
    for query in (torch.randn(11), vectors[13]):
        for top in (1, 5, 101):
            found = nearest(query, vectors.numpy(), top)
            expected = similar(query, vectors, top)
            assert [match.index for match in found] == [match.index for match in expected]
            scores = [match.score for match in expected]
            assert [match.score for match in found] == pytest.approx(scores, abs=1e-6)
    with pytest.raises(ShapeError):
        nearest(torch.ones(3), vectors.numpy(), 1)


@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_a_file_is_opened_as_it_was_written(model, texts, tmp_path, ending):
    path = tmp_path / f"a{ending}"
    written(model, texts, path)
    assert saved_vectors.is_saved(path)
    assert not saved_vectors.is_saved(texts)
    for _ in range(2):  # the second time from the copy
        saved = saved_vectors.opened(path)
        np.testing.assert_array_equal(np.array(saved.vectors), embed(model, TEXTS).numpy())
    probe = embed(model, [vector_writing.PROBE])[0]
    saved.check(probe, NAME)
    items = saved.items([20, 0, 3])
    if ending == ".parquet":
        assert saved.model == NAME
        assert items.texts == [TEXTS[20], TEXTS[0], TEXTS[3]]
        assert items.lines == [23, 2, 6]
        with pytest.raises(ArgumentError, match="embeddings of tiny, which differ from those of b"):
            saved.check(probe + 0.1, "b")
    else:
        assert items.lines == [21, 1, 4]
        assert items.notes == [f"'{path}' has no texts; .parquet files have"]
    with pytest.raises(ArgumentError, match=r"numbers, but those of b have 3; name their encoder"):
        saved.check(torch.ones(3), "b")


def test_a_new_file_of_the_same_name_is_not_the_old_one(model, texts, tmp_path):
    path = tmp_path / "a.parquet"
    written(model, texts, path)
    before = np.array(saved_vectors.opened(path).vectors)
    texts.write_text(texts.read_text(encoding="utf-8").replace("rain", "snow"))
    written(model, texts, path, overwrite=True)
    assert not np.array_equal(saved_vectors.opened(path).vectors, before)


def test_only_so_many_copies_are_kept(model, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(saved_vectors, "MOST_CACHED", 2)
    for number in range(4):
        path = tmp_path / f"{number}.parquet"
        written(model, texts, path)
        assert len(saved_vectors.opened(path).vectors) == 21
    assert len(list(saved_vectors.cache().iterdir())) == 2


def array(shape, numbers="<f4", content=b"", by_columns=False, tmp=None):
    header = {"descr": numbers, "fortran_order": by_columns, "shape": shape}
    with tmp.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(content)
    return tmp


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"shape": (3, 5), "content": bytes(59)}, "it is cut short"),
        ({"shape": (3, 5), "content": bytes(67)}, "it has 7 bytes more than its embeddings need"),
        ({"shape": (10**12, 10**6)}, "it is cut short"),
        ({"shape": (0, 5)}, "it has no embeddings"),
        ({"shape": (3,), "content": bytes(12)}, r"float32 of shape \(3,\), not float32 \(texts"),
        ({"shape": (3, 1), "numbers": "<f8", "content": bytes(24)}, "it has float64"),
        ({"shape": (3, 1), "by_columns": True, "content": bytes(12)}, "not float32"),
        ({"shape": (3, 1), "numbers": "|O", "content": bytes(24)}, "it has object"),
    ],
)
def test_arrays_that_are_no_embeddings(tmp_path, made, told):
    with pytest.raises(FileError, match=told):
        saved_vectors.opened(array(**made, tmp=tmp_path / "a.npy")).vectors  # noqa: B018


def test_tables_that_are_no_embeddings(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {"line": [1], "text": ["a"], "embedding": [[1.0, 2.0]]}

    def write(mark, kind):
        schema = pyarrow.schema(
            [("line", pyarrow.int64()), ("text", pyarrow.string()), ("embedding", kind)],
            metadata={saved_vectors.MARK: mark} if mark else None,
        )
        pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), path)

    right = pyarrow.list_(pyarrow.float32(), 2)
    for mark in (None, b"[", b"3", b"\xff"):
        write(mark, right)
        assert not saved_vectors.is_saved(path)
    for about in ({"model": 3}, {"probe": ["a"]}, {"probe": 3}, {"probe": [float("nan")]}):
        write(json.dumps(about).encode(), right)
        with pytest.raises(FileError, match="are damaged"):
            saved_vectors.opened(path)
    write(b"{}", pyarrow.list_(pyarrow.float32()))
    with pytest.raises(FileError, match="not lists of float32"):
        saved_vectors.opened(path).vectors  # noqa: B018
    os.unlink(path)
    os.mkfifo(path)
    assert not saved_vectors.is_saved(path)
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(FileError, match="not a regular file"):
        saved_vectors.opened(tmp_path / "a.npy").vectors  # noqa: B018


def test_similar_reads_what_embed_wrote(run, texts, tmp_path):
    saved, folder = tmp_path / "a.parquet", tmp_path / "folder"
    assert run("embed", "--file", texts, "-o", saved)[0] == 0
    _, out, _ = run("similar", "a bowl of soup", texts, "--json", "--top", 4)
    status, again, err = run("similar", "a bowl of soup", saved, "--json", "--top", 4)
    assert (status, err) == (0, "")
    expected, found = json.loads(out), json.loads(again)
    assert [match["line"] for match in found["matches"]] == [
        match["line"] for match in expected["matches"]
    ]
    assert found["matches"][0]["text"].endswith("soup")
    assert found["texts"] == 21
    folder.mkdir()
    Path(folder / "b.csv").write_bytes(texts.read_bytes())
    run("embed", "--file", folder, "-o", tmp_path / "b.parquet")
    _, out, _ = run("similar", "a bowl of soup", tmp_path / "b.parquet", "--json", "--top", 1)
    assert json.loads(out)["matches"][0]["file"] == str(folder / "b.csv")


def test_cells_find_what_a_scan_finds(model, texts, tmp_path, monkeypatch, run):
    """Clusters of vectors, of which a query near one is answered from its cells."""
    monkeypatch.setattr(vector_index, "MOST_EXACT", 1000)
    torch.manual_seed(7)
    vectors = torch.randn(37, 11)[torch.randint(37, (3001,))] * 3 + torch.randn(3001, 11) * 0.3
    path = tmp_path / "many.npy"
    np.save(path, vectors.numpy())
    saved = saved_vectors.opened(path)
    assert vector_index.has_index(saved)
    made = []
    for number in (3, 1009, 3000):
        found = nearest_cells(vectors[number] * 2, saved, 13, lambda *told: made.append(told))
        wanted = nearest(vectors[number], saved.vectors, 13)
        assert found[0].index == number
        scores = {match.index: match.score for match in similar(vectors[number], vectors)}
        assert [match.score for match in found] == pytest.approx(
            [scores[match.index] for match in found], abs=1e-5
        )
        assert len({match.index for match in found} & {match.index for match in wanted}) >= 11
    assert made == [(3001, 3001)], "the index is made once"
    assert [file.suffix for file in saved_vectors.cache().iterdir()] == [".faiss"]
    vectors[[5, 2999]] = torch.nan
    np.save(tmp_path / "wrong.npy", vectors.numpy())
    wrong = saved_vectors.opened(tmp_path / "wrong.npy")
    with pytest.warns(UserWarning, match=r"^2 embeddings .* left out; the first is in row 6$"):
        nearest_cells(vectors[3], wrong, 13)
    found = nearest_cells(vectors[3], wrong, 3001)
    assert not {5, 2999} & {match.index for match in found}
    small = tmp_path / "a.parquet"
    monkeypatch.setattr(vector_index, "MOST_EXACT", 20)
    run("embed", "--file", texts, "-o", small)
    for options, told in ((["--exact"], ""), ([], "--exact compares every text")):
        status, out, err = run("similar", "a bowl of soup", small, "--json", "--top", 1, *options)
        assert status == 0
        assert told in err
        assert bool(err) == bool(told)
        assert json.loads(out)["matches"][0]["text"].endswith("soup")
    monkeypatch.setattr(vector_index, "find_spec", lambda _: None)  # faiss is not installed
    assert not vector_index.has_index(saved)

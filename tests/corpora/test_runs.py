"""Tasks over folders: each text once, whatever happens on the way."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from pellucid import corpora, errors
from pellucid.corpora import engine
from pellucid.corpora.parts import Reader, name_of_part
from pellucid.corpora.writing import write_part
from pellucid.tasks import open_encoder, open_translator, translate
from pellucid.tasks.embedding import embed
from tests.corpora.folders import TEXTS, folder_of, rows_of


@pytest.fixture
def folder(tmp_path):
    return folder_of(tmp_path, TEXTS)


def test_each_text_is_embedded_once_as_it_is_alone(folder, tmp_path):
    steps = []
    summary = corpora.run(
        folder,
        tmp_path / "out",
        corpora.Embed(),
        size=7,
        progress=lambda done, files: steps.append((done.texts, done.files, files)),
    )
    rows = rows_of(tmp_path / "out")
    assert [row["text"] for row in rows] == TEXTS
    assert [row["line"] for row in rows] == [*range(1, 19), *range(2, 20)]
    assert {row["file"] for row in rows} == {"a.txt", os.path.join("more", "b.csv")}
    expected = embed(open_encoder(), TEXTS).numpy()
    assert np.abs(np.array([row["embedding"] for row in rows]) - expected).max() < 1e-5
    assert (summary.texts, summary.files, summary.aside, summary.blank) == (36, 2, 0, 1)
    assert steps[-1] == (36, 2, 2)
    assert len(steps) == 6  # 18 texts in parts of 7, twice


def test_a_run_goes_on_where_it_was(folder, tmp_path, monkeypatch):
    output = tmp_path / "out"
    written = []

    def stop(path, *rest):
        written.append(path)
        if len(written) == 4:
            raise KeyboardInterrupt
        return write(path, *rest)

    write = engine.Worker.__call__.__globals__["write_part"]
    monkeypatch.setitem(engine.Worker.__call__.__globals__, "write_part", stop)
    with pytest.raises(KeyboardInterrupt):
        corpora.run(folder, output, corpora.Embed(), size=7)
    monkeypatch.undo()
    before = {file: file.stat().st_mtime_ns for file in (output / "parts").iterdir()}
    assert len(before) == 3
    (folder / "c.txt").write_text("One more file\n", encoding="utf-8")
    summary = corpora.run(folder, output, corpora.Embed(), size=7)
    assert (summary.texts, summary.before) == (37, 18)
    assert all(file.stat().st_mtime_ns == moment for file, moment in before.items())
    assert [row["text"] for row in rows_of(output)] == [*TEXTS[:18], "One more file", *TEXTS[18:]]


def test_what_cannot_be_read_is_set_aside_with_its_reason(folder, tmp_path):
    (folder / "bad.jsonl").write_text('{"text": "fine"}\n{"text": }\n', encoding="utf-8")
    (folder / "long.txt").write_text("short\n" + "long " * 600 + "\n", encoding="utf-8")
    summary = corpora.run(folder, tmp_path / "out", corpora.Embed(strict=True))
    aside = rows_of(tmp_path / "out", "set-aside")
    assert [(row["file"], row["line"]) for row in aside] == [("bad.jsonl", 2), ("long.txt", 2)]
    assert "line 2" in aside[0]["reason"]
    assert "JSON" in aside[0]["reason"]
    assert aside[0]["text"] == '{"text": }'
    assert aside[1]["reason"].startswith("line 2 of 'long.txt' has 602 tokens")
    assert aside[1]["text"].startswith("long long")
    assert (summary.texts, summary.aside) == (38, 2)
    assert "short" in {row["text"] for row in rows_of(tmp_path / "out")}


BAD_ROWS = {
    "lines.jsonl": ('{"text": "r%d"}\n', '{"text": "broken\n', "not JSON"),
    "numbers.jsonl": ('{"text": "r%d"}\n', '{"text": 1.5}\n', "float, not text"),
    "lines.json": ('{"text": "r%d"}\n', "{oops\n", "not JSON"),
    "words.jsonl": ('{"text": "r%d"}\n', '{"text": "Caf\xe9"}\n', "“Café”, .* windows-1252"),
    "uneven.csv": ("r%d,n\n", "a,b,c\n", "3 fields"),
    "open.csv": ("r%d,n\n", '"open,n\n', "does not end"),
    "closed.csv": ("r%d,n\n", '"said" he,n\n', "expected after"),
    "western.csv": ("r%d,n\n", "Caf\xe9,n\n", "has the byte 0xe9; if that is “Café”"),
    "western.txt": ("r%d\n", "Caf\xe9\n", "has the byte 0xe9"),
    "tabs.tsv": ("r%d\tn\n", "one\n", "1 field"),
}
"""How a good row is written, a bad one, and what is said of it."""


@pytest.mark.parametrize("name", BAD_ROWS)
@pytest.mark.parametrize("place", [0, 5, 130])
def test_a_bad_row_is_set_aside_alone(name, place, tmp_path):
    """Wherever it is, all others are read, in their lines."""
    good, bad, reason = BAD_ROWS[name]
    rows = [good % number for number in range(131)]
    header = {".csv": "text,n\n", ".tsv": "text\tn\n"}.get(name[-4:], "")
    rows[place:place] = [bad]
    (tmp_path / name).write_bytes("".join([header, *rows]).encode("cp1252"))
    reader = Reader(folder=tmp_path, output=tmp_path, size=50)
    parts = list(reader.parts(name))
    assert [text for part in parts for text in part.texts] == [f"r{n}" for n in range(131)]
    lines = [line for part in parts for line in part.lines]
    (found,) = (one for part in parts for one in part.bad)
    first = 2 if header else 1
    assert found.line == first + place
    assert sorted([*lines, found.line]) == list(range(first, first + 132))
    assert re.search(reason, found.reason), found.reason
    assert not any(part.problem for part in parts)


def test_several_bad_rows_at_the_top_of_lines_of_json(tmp_path):
    (tmp_path / "a.json").write_text('{oops\n{"text"\n{"text": "a"}\n{"text": "b"}\n')
    (part,) = Reader(folder=tmp_path, output=tmp_path, size=50).parts("a.json")
    assert (part.texts, part.lines, part.problem) == (["a", "b"], [3, 4], "")
    assert [one.line for one in part.bad] == [1, 2]


def test_the_rest_of_a_file_is_said_to_be_lost_where_it_is(folder, tmp_path):
    """Nobody can say where the next item of a broken array begins."""
    (folder / "bad.json").write_text('[{"text": "fine"}, {"text": oops}, {"text": "lost"}]')
    summary = corpora.run(folder, tmp_path / "out", corpora.Embed())
    assert (summary.texts, summary.aside, summary.unread) == (37, 0, 1)
    (aside,) = rows_of(tmp_path / "out", "set-aside")
    assert "not JSON" in aside["reason"]


def test_a_bad_row_can_be_mended_where_the_run_is(folder, tmp_path):
    """Parts that differ are made again, others stay, and those that are no longer there go."""
    output, lines = tmp_path / "out", [f'{{"text": "row {n}"}}\n' for n in range(23)]
    lines[8] = "broken\n"
    (folder / "c.jsonl").write_text("".join(lines))
    (folder / "c.jsonl.txt").write_text("another file\n" * 11)
    first = corpora.run(folder, output, corpora.Embed(), size=5)
    assert (first.texts, first.aside) == (36 + 22 + 11, 1)
    before = {file.name: file.stat().st_mtime_ns for file in (output / "parts").iterdir()}
    lines[8] = '{"text": "mended"}\n'
    (folder / "c.jsonl").write_text("".join(lines[:14]))
    with pytest.raises(
        errors.ArgumentError, match=r"c\.jsonl' has changed .* --overwrite replaces"
    ):
        corpora.run(folder, output, corpora.Embed(), size=5)
    second = corpora.run(folder, output, corpora.Embed(), size=5, overwrite=True)
    assert (second.texts, second.aside) == (36 + 14 + 11, 0)
    rows = [row for row in rows_of(output) if row["file"] == "c.jsonl"]
    assert [row["line"] for row in rows] == list(range(1, 15))
    assert rows[8]["text"] == "mended"
    assert not list((output / "set-aside").iterdir())
    after = {file.name: file.stat().st_mtime_ns for file in (output / "parts").iterdir()}
    assert before.keys() - after.keys() == {
        name_of_part("c.jsonl", 15), name_of_part("c.jsonl", 20),
    }  # fmt: skip
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {name_of_part("c.jsonl", 5), name_of_part("c.jsonl", 10)}
    third = corpora.run(folder, output, corpora.Embed(), size=5)  # it has not changed since
    assert (third.before, third.aside) == (61, 0)


def test_texts_that_are_cut_are_said(folder, tmp_path):
    (folder / "long.txt").write_text("short\n" + "long " * 600 + "\n", encoding="utf-8")
    summary = corpora.run(folder, tmp_path / "out", corpora.Embed())
    (note,) = summary.notes
    assert "line 2 of 'long.txt'" in note
    assert summary.warnings == 1


def test_a_directory_belongs_to_one_run(folder, tmp_path):
    output = tmp_path / "out"
    corpora.run(folder, output, corpora.Embed(), size=7)
    with pytest.raises(errors.ExistsError, match="options"):
        corpora.run(folder, output, corpora.Embed(strict=True), size=7)
    with pytest.raises(errors.ExistsError, match='column null, not "text"'):
        corpora.run(folder, output, corpora.Embed(), size=7, column="text")
    with pytest.raises(errors.ExistsError, match="size"):
        corpora.run(folder, output, corpora.Embed(), size=5)
    (folder / "a.txt").write_text("changed\n", encoding="utf-8")
    with pytest.raises(errors.ArgumentError, match="changed"):
        corpora.run(folder, output, corpora.Embed(), size=7)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(errors.ExistsError, match="other files"):
        corpora.run(folder, other, corpora.Embed())
    assert [file.name for file in other.iterdir()] == ["mine.txt"]
    with pytest.raises(errors.ArgumentError, match="within"):
        corpora.run(folder, folder / "out", corpora.Embed())
    with pytest.raises(errors.FileError, match="not a directory"):
        corpora.run(folder / "a.txt", tmp_path / "new", corpora.Embed())
    with pytest.raises(errors.ArgumentError, match="title"):
        corpora.run(folder / "more", tmp_path / "new", corpora.Embed(), column="title")


def test_translations_are_those_of_translate(folder, tmp_path):
    corpora.run(folder / "more", tmp_path / "out", corpora.Translate(beams=1), size=5)
    expected = translate(open_translator(), TEXTS[18:], beams=1)
    rows = rows_of(tmp_path / "out")
    assert [row["text"] for row in rows] == [one.text for one in expected]
    assert [row["source"] for row in rows] == TEXTS[18:]


def test_a_file_has_parts_of_its_own_even_if_it_is_empty(tmp_path):
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    (tmp_path / "ten.txt").write_text("text\n" * 10, encoding="utf-8")
    reader = Reader(folder=tmp_path, output=tmp_path, size=5)
    (empty,) = reader.parts("empty.txt")
    assert empty.ends
    assert "empty" in empty.problem
    first, second = reader.parts("ten.txt")
    assert (len(first.texts), len(second.texts)) == (5, 5)
    assert (first.ends, second.ends) == (False, True)
    (tmp_path / second.name).write_bytes(b"")  # which is not what a run writes
    assert [part.done for part in reader.parts("ten.txt")] == [False, False]
    (tmp_path / "parts").mkdir()
    write_part(tmp_path, second, {"text": second.texts}, [], {})
    (tmp_path / "parts" / second.name).rename(tmp_path / second.name)
    assert [part.done for part in reader.parts("ten.txt")] == [False, True]


KILLED = """
import sys
from pathlib import Path
from pellucid import corpora

if __name__ == "__main__":
    folder, output = map(Path, sys.argv[1:])
    corpora.run(
        folder, output, corpora.Embed(), workers=2, size=2,
        progress=lambda done, files: print(done.texts, flush=True),
    )
"""


def started(script, folder, output):
    return subprocess.Popen(
        [sys.executable, script, folder, output], stdout=subprocess.PIPE, text=True
    )


def workers_of_ray():
    """The processes of actors, by what they are called."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    name = file.read().split(b"\0")[0]
            except OSError:
                continue
            if name.startswith(b"ray::") and b"MapWorker" in name:
                found.append(int(entry))
    return found


NEEDS_PROC = pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")


@pytest.mark.slow  # Ray starts seven processes, which takes minutes on busy cores
@NEEDS_PROC
def test_a_worker_that_is_killed_loses_and_repeats_nothing(folder, tmp_path):
    pytest.importorskip("ray")
    script, output = tmp_path / "killed.py", tmp_path / "out"
    script.write_text(KILLED, encoding="utf-8")
    driver = started(script, folder, output)
    assert driver.stdout.readline()  # a part is done
    os.kill(workers_of_ray()[0], signal.SIGKILL)
    assert driver.communicate(timeout=240)[0].splitlines()[-1] == "36"
    assert driver.returncode == 0
    assert [row["text"] for row in rows_of(output)] == TEXTS


@pytest.mark.slow
@NEEDS_PROC
def test_a_driver_that_is_killed_goes_on_where_it_was(folder, tmp_path):
    pytest.importorskip("ray")
    script, output = tmp_path / "killed.py", tmp_path / "out"
    script.write_text(KILLED, encoding="utf-8")
    driver = started(script, folder, output)
    for _ in range(3):
        assert driver.stdout.readline()
    driver.kill()
    driver.communicate()
    driver = started(script, folder, output)
    assert driver.communicate(timeout=240)[0].splitlines()[-1] == "36"
    assert [row["text"] for row in rows_of(output)] == TEXTS

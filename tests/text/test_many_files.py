"""Folders, parallel files, limits: what the reader does beyond one file of one kind."""

import json
import os

import pyarrow.parquet
import pytest

from pellucid.common import untrusted
from pellucid.errors import ArgumentError, FileError
from pellucid.tasks.targets import read
from pellucid.text import folders
from pellucid.text.columns import numbered, parsed_column
from pellucid.text.folders import files_in
from pellucid.text.noticed import Noticed
from pellucid.text.table_reading import Reading, table
from pellucid.text.text_inputs import Source, from_file
from pellucid.text.utf8_files import STDIN
from pellucid.training.corpus import Tally, documents, rows
from pellucid.training.run_config import Run


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "folder"
    (path / "b").mkdir(parents=True)
    (path / ".hidden").mkdir()
    (path / "a.txt").write_text("one\n\ntwo\n")
    (path / "b" / "c.csv").write_text("id;text\n1;three\n2; \n")
    (path / "b" / "a.jsonl").write_text('{"text": "four"}\n')
    (path / "picture.png").write_bytes(b"\x89PNG")
    (path / ".hidden" / "d.txt").write_text("no")
    (path / ".e.txt").write_text("no")
    return path


def test_a_folder_is_all_its_files_in_order(folder):
    found = from_file(folder)
    assert found.texts == ["one", "two", "four", "three"]
    assert found.location_columns["line"] == [1, 3, 1, 2]
    names = [os.path.relpath(file, folder) for file in found.location_columns["file"]]
    assert names == ["a.txt", "a.txt", "b/a.jsonl", "b/c.csv"]
    assert found.names[3] == f"line 2 of '{folder}/b/c.csv'"
    assert found.notes == [
        f"left out 1 file of '{folder}' that are neither text nor tables: picture.png",
        f"left out 2 empty lines of '{folder}': the first is line 2 of '{folder}/a.txt'",
    ]
    assert [piece.text for piece in documents(files_in([folder])[0])] == [
        "one\n\ntwo\n", "four", "three",
    ]  # fmt: skip


def test_folders_that_cannot_be_read(folder, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="is a directory without files that can be read"):
        from_file(tmp_path / "empty")
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(FileError, match="it is not a regular file"):
        from_file(folder, whole=True)
    (folder / "pipe.txt").unlink()
    (folder / "circle").symlink_to(folder)  # which is not followed
    assert len(from_file(folder).texts) == 4
    monkeypatch.setattr(folders, "MOST", 3)
    with pytest.raises(FileError, match="has more than 3 files"):
        from_file(folder)
    assert files_in([STDIN]) == ([STDIN], [])


def test_a_file_that_cannot_be_read_is_left_out_whole(folder):
    (folder / "b" / "b.csv").write_text("text,id\nfive,1\n ,2\nsix\n")  # a row without an id
    (folder / "b" / "d.txt").write_bytes(b"caf\xe9\n")
    found = from_file(folder)
    assert found.texts == ["one", "two", "four", "three"]
    assert found.lines == [1, 3, 1, 2]
    assert len(found.files) == 4
    assert len(found.blank) == 2  # none of b.csv
    [note] = [note for note in found.notes if "cannot be read" in note]
    assert note.startswith(f"left out 2 files of '{folder}' that cannot be read: the first: ")
    assert f"line 4 of '{folder}/b/b.csv'" in note
    for whole in ({"whole": True}, {"label": "id"}):
        with pytest.raises((FileError, ArgumentError)):
            from_file(folder, **whole)
    with pytest.raises(ArgumentError, match=r"a\.txt' has one text per line and no columns"):
        from_file(folder, "nowhere")  # of all


def test_columns_by_number_and_names_that_are_numbers(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("1\tgood\n0\tbad\n")
    found = from_file(path, 2, 1)
    assert (found.texts, found.labels, found.lines) == (["good", "bad"], ["1", "0"], [1, 2])
    assert not found.notes
    assert list(map(parsed_column, ["2", "0", '"2"', "data.2", '"a"'])) == [
        2, "0", "2", "data.2", '"a"',
    ]  # fmt: skip
    with pytest.raises(ArgumentError, match="all names or all numbers, not 'label' and 2"):
        from_file(path, 2, "label")
    path.write_text("1\t2020\nx\ty\n")
    assert from_file(path, "2020").texts == ["y"]
    assert "--column '\"1\"'" in from_file(path, 1).notes[0]
    with pytest.raises(ArgumentError, match="it has 2 columns, one of them named '\"2020\"'"):
        from_file(path, 2020)
    (tmp_path / "a.jsonl").write_text('{"data": {"text": "x"}, "said": {"label": "y"}}\n')
    assert from_file(tmp_path / "a.jsonl", "data.text").texts == ["x"]
    assert list(rows([tmp_path / "a.jsonl"], ["data.text", "said.label"])) == [("x", "y")]
    with pytest.raises(ArgumentError, match="have names, not numbers"):
        from_file(tmp_path / "a.jsonl", 1)


def test_where_several_labels_are_allowed_a_text_may_have_none(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,x;y\nb,\nc, \n,x\n")
    found = from_file(path, label="label", may_lack=True)
    assert found.labels == ["x;y", "", ""]
    assert read(found.labels, "labels") == [("x", "y"), (), ()]
    read_rows = list(rows([path], ["text", "label"], labelled=True, may_lack=True))
    assert read_rows == [("a", "x;y"), ("b", ""), ("c", "")]
    with pytest.raises(FileError, match="no label in line 3; if a text may have several labels"):
        from_file(path, label="label")
    with pytest.raises(FileError, match="no label in line 3"):
        list(rows([path], ["text", "label"], labelled=True))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_label_that_is_not_a_number_is_missing(kind, tmp_path):
    """NaN is how pandas writes a label that is not known."""
    path, labels = tmp_path / f"a.{kind}", [1.5, float("nan"), None]
    if kind == "jsonl":
        found = [{"text": "a", "label": label} for label in labels]
        path.write_text("\n".join(map(json.dumps, found)))
    else:
        pyarrow.parquet.write_table(pyarrow.table({"text": ["a"] * 3, "label": labels}), path)
    with pytest.raises(FileError, match="no label in line 2"):
        from_file(path, label="label")
    assert from_file(path, label="label", may_lack=True).labels == ["1.5", "", ""]
    path = tmp_path / "b.jsonl"
    path.write_text('{"text": "a", "label": ["x", NaN, 2]}')
    assert read(from_file(path, label="label").labels) == [("x", "2")]


def test_two_files_of_lines_are_pairs(tmp_path):
    english, spanish = tmp_path / "a.en", tmp_path / "a.es"
    english.write_bytes("The sea\r\n\r\nA house\r\n".encode("utf-16"))
    spanish.write_text("El mar\nnada\nUna casa, ¿no?\n", encoding="utf-8")
    tally = Tally()
    files, columns = [english, spanish] * 2, ["source", "target"]
    found = list(rows(files, columns, tally=tally))
    assert found == [("The sea", "El mar"), ("A house", "Una casa, ¿no?")] * 2
    assert tally.blank == 2
    spanish.write_text("El mar\n")
    with pytest.raises(FileError, match=r"a\.es' ends before line 2 of '.*a\.en'; in parallel"):
        list(rows(files, columns))
    for given in ([english], [english, tmp_path / "b.csv"]):
        with pytest.raises(ArgumentError, match="the file after it must hold its translations"):
            list(rows(given, columns))


def test_how_a_file_is_written_reaches_training(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("text|label\nCafé|1\nSeñor|2\n".encode("cp1252"))
    reading = Reading(delimiter="pipe", encoding="windows-1252")
    assert list(rows([path], ["label", "text"], reading=reading)) == [("1", "Café"), ("2", "Señor")]
    assert [piece.text for piece in documents([path], reading=reading)] == ["Café", "Señor"]
    run = Run(what="decoder", files=(path,), reading=reading)
    run.save(tmp_path / "run.json")
    assert Run.read(tmp_path / "run.json").reading == reading
    values = json.loads((tmp_path / "run.json").read_text())
    del values["reading"]  # as a run of an earlier version
    (tmp_path / "run.json").write_text(json.dumps(values))
    assert Run.read(tmp_path / "run.json").reading == Reading()


def test_what_training_notices(tmp_path):
    path, tally = tmp_path / "a.csv", Tally()
    path.write_text('text\n"{""a"": 1}"\nb\n')
    list(documents([path], tally=tally))
    assert len(tally.notes) == 1
    assert tally.notes[0].startswith("1 text is JSON, read as it stands, in line 2 of ")
    (tmp_path / "b.txt").write_text('{"text": "a"}\n' * 3)
    list(documents([tmp_path / "b.txt"], tally=tally))
    assert "name the file .jsonl" in tally.notes[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"delimiter": "ab"}, "--delimiter must be comma, semicolon, tab, pipe or another single"),
        ({"delimiter": '"'}, "--delimiter must be"),
        ({"delimiter": "x"}, "--delimiter must be"),
        ({"delimiter": ""}, "--delimiter must be"),
        ({"encoding": "windows-1999"}, "--encoding 'windows-1999' is unknown"),
        ({"encoding": "rot13"}, "--encoding 'rot13' is unknown"),
        ({"encoding": "a\0b"}, "is unknown"),
    ],
)
def test_what_no_file_is_written_in(options, told):
    with pytest.raises(ArgumentError, match=told):
        Reading(**options)


def test_names_of_delimiters():
    given = ["comma", "Semicolon", "tab", "\\t", "|", "^"]
    assert [Reading(delimiter=one).delimiter for one in given] == [",", ";", "\t", "\t", "|", "^"]


def test_json_has_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(untrusted, "MOST_JSON_LINE", 1009)
    monkeypatch.setattr(untrusted, "MOST_JSON_DOCUMENT", 2003)
    path = tmp_path / "a.json"
    long = {"text": "a" * 1013}
    path.write_text(json.dumps([{"text": "b"}, long], indent=1))
    with pytest.raises(FileError, match=r"the object in line 5 of '.*' has more than 1,009"):
        from_file(path)
    path.write_text('[{"text": "' + "a" * 9001)
    with pytest.raises(FileError, match=r"line 1 of '.*' is not JSON: Unterminated string"):
        from_file(path)
    path.write_text(json.dumps({"data": [{"text": "b"}, long, long]}, indent=1))
    with pytest.raises(FileError, match=r"the object of '.*' has more than 2,003 characters"):
        from_file(path)
    for deep in ("[" * 100_000, '{"a":' * 100_000):
        path.write_text(deep)
        with pytest.raises(FileError):
            from_file(path)


@pytest.mark.parametrize(
    "content", [b"", b" ", b"[]", b"[ ] ", b"{}", b"[1]", b"[[]]", b"3", b"[,]"]
)
def test_json_without_texts(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises((FileError, ArgumentError)):
        from_file(tmp_path / "a.json")


def test_an_array_is_read_an_item_at_a_time(tmp_path):
    """Items that span blocks, with any space between them, and lines counted."""
    items = [{"text": f"{n} " + 'é"]},' * (n % 7) * 500} for n in range(97)]
    path = tmp_path / "a.json"
    path.write_text("\n\n[\n" + " ,\n\n".join(map(json.dumps, items)) + "\n]\n")
    found = from_file(path)
    assert found.texts == [item["text"] for item in items]
    assert found.lines == list(range(4, 4 + 2 * 97, 2))
    path.write_text(path.read_text() + "{}")
    with pytest.raises(FileError, match=r"line 198 of .* is not JSON: more follows after ]"):
        from_file(path)


def test_standard_input_tells_its_kind(monkeypatch):
    import io

    for content in (
        b"a;text\n1;x\n2;y\n",
        b'[{"text": "x"}, {"text": "y"}]',
        b'{"text":"x"}\n{"text":"y"}',
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert from_file(STDIN, "text").texts == ["x", "y"]


def test_tables_without_a_header_are_told_by_number(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sep=;\nHello, world;1\nBye;2\n")
    assert list(table(path, numbered(path, 1), headed=False)) == [
        (2, ["Hello, world"]),
        (3, ["Bye"]),
    ]


def test_each_kind_is_said_once(tmp_path):
    noticed = Noticed()
    for line in (3, 5, 8):
        noticed.add("lost", "a", line, "caf\ufffd\x1b[31m")
    [note] = noticed.notes()
    assert note.startswith("3 texts have the mark of a character that was lost before (U+FFFD)")
    assert note.endswith("the first in line 3 of 'a': “caf\ufffd\ufffd[31m”")


def test_texts_are_told_apart_from_other_texts(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\n")
    first = Source(path).identity
    assert Source(path).identity == first
    assert Source(path, reading=Reading(encoding="ascii")).identity != first
    path.write_text("ab\n")
    assert Source(path).identity != first


def test_a_name_of_several_lines_is_said_in_one(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,"b\nc"\n1,2\n')
    for column in (None, "d"):
        with pytest.raises(ArgumentError, match="'a' and 'b c'") as error:
            from_file(path, column)
        assert "\n" not in str(error.value)

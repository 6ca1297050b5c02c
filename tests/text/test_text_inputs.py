"""Texts read from arguments, files and standard input; each with the line it came from."""

import csv
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.common.files import is_blank
from pellucid.errors import ArgumentError, FileError
from pellucid.text.table_reading import Reading
from pellucid.text.text_inputs import from_arguments, from_file
from pellucid.text.utf8_files import STDIN


@pytest.fixture
def stdin(monkeypatch):
    def put(content: bytes):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return put


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_a_text_a_line(written):
    found = from_file(written("a.txt", "\ufeffone\r\n\n \ttwo\n \nthree\u2028still three"))
    assert found.texts == ["one", " \ttwo", "three\u2028still three"]
    assert (found.lines, found.blank, found.labels) == ([1, 3, 5], [2, 4], [])
    assert found.names[1] == f"line 3 of '{found.source}'"


def test_standard_input_holds_lines_or_a_csv(stdin):
    stdin(b"one\ntwo\n")
    assert from_file(STDIN).texts == ["one", "two"]
    stdin(b"a,b\n1,one\n2,two\n")
    found = from_file(STDIN, "b")
    assert (found.texts, found.source) == (["one", "two"], "standard input")


def test_closed_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(FileError, match="standard input: it is closed"):
        from_file(STDIN)


def test_csv_with_header_and_quoting(written):
    path = written("a.csv", 'id,text,label\n1,"a ""b"", c\nd",x\n\n2, ,y\n3,last, z \n')
    found = from_file(path, label="label")
    assert found.texts == ['a "b", c\nd', "last"]
    assert (found.labels, found.lines, found.blank) == (["x", "z"], [2, 6], [5])
    assert from_file(path, "id").texts == ["1", "2", "3"]
    assert from_file(written("a.tsv", "id\ttext\n1\ta, b\n")).texts == ["a, b"]


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=7))
def test_what_csv_writes_is_read_back(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["text", "n"], *([text, "0"] for text in texts)])
    kept = [text for text in texts if not is_blank(text)]
    told = Reading(encoding="utf-8")  # some of these texts look like UTF-16
    if kept:
        assert from_file(path, reading=told).texts == kept
    else:
        with pytest.raises(FileError, match="is empty"):
            from_file(path, reading=told)


def test_a_field_longer_than_python_s_limit(written):
    limit = csv.field_size_limit()
    found = from_file(written("a.csv", f"text\n{'long ' * 100_000}\n"))
    assert len(found.texts[0]) == 500_000
    assert csv.field_size_limit() == limit


def test_json_lines(written):
    rows = [{"text": "one", "label": 1}, {"label": 0, "text": "two"}, {"label": 1, "text": None}]
    path = written("a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    found = from_file(path, label="label")
    assert (found.texts, found.labels, found.lines) == (["one", "two"], ["1", "0"], [1, 2])


def test_labels_may_be_numbers_and_lists(tmp_path):
    path = tmp_path / "a.jsonl"
    labels = [1.5, 2, True, "a", ["b", "c"], [], [1, 2.5]]
    path.write_text("\n".join(json.dumps({"text": "x", "label": one}) for one in labels))
    told = ["1.5", "2", "true", "a", '["b", "c"]', "[]", '["1", "2.5"]']
    assert from_file(path, label="label").labels == told
    table = pyarrow.table({"text": ["x"] * 3, "label": [["b"], ["b", "c"], []], "n": [0.5, 1, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert from_file(tmp_path / "a.parquet", "text", "n").labels == ["0.5", "1.0", "2.0"]
    found = from_file(tmp_path / "a.parquet", "text", "label")
    assert found.labels == ['["b"]', '["b", "c"]', "[]"]


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    words = pyarrow.array(["one", None, "two"])
    table = pyarrow.table({"text": words, "kind": words.dictionary_encode(), "n": [1.5, 2.0, 3.0]})
    pyarrow.parquet.write_table(table, path)
    assert from_file(path).texts == ["one", "two"]
    assert from_file(path, "kind").lines == [1, 3]
    with pytest.raises(FileError, match=r"n in line 1 of '.*' is a float, not text"):
        from_file(path, "n")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"ab\nc\xff\xfe", "is not UTF-8 text: byte 4, in line 2, is 0xff"),
        ("a.txt", b"\xef\xbb\xbfa\xff", "byte 4, in line 1, is 0xff"),
        ("a.csv", b"text\n\xc3", "is not UTF-8 text"),
        ("a.txt", b"", "is empty: there is nothing to read"),
        ("a.txt", b" \n\n", "is empty: there is nothing to read"),
        ("a.csv", b"", "is empty: there is nothing to read"),
        ("a.csv", b"text\n", "is empty: there is nothing to read"),
        ("a.csv", b"a,text\n1,b\n2,c,d\n", "line 3 of '.*' has 3 fields, but its header has 2"),
        ("a.csv", b'text\n"a\nb', "is not valid CSV from line 2 on"),
        ("a.jsonl", b'{"text": 1.5}', "text in line 1 of '.*' is a float, not text"),
        ("a.jsonl", b'{"text": "a"}\nnot', "line 2 of '.*' is not JSON"),
        ("a.jsonl", b"[1]", "line 1 of '.*' is not a JSON object"),
        ("a.parquet", b"not a table", "cannot read"),
    ],
)
def test_files_that_are_none(written, name, content, told):
    with pytest.raises(FileError, match=told):
        from_file(written(name, content))


def test_files_that_are_not_there(tmp_path):
    for name in ("a.txt", "a.csv", "a.parquet"):
        with pytest.raises(FileError, match=r"cannot read '.*': No such file"):
            from_file(tmp_path / name)
    with pytest.raises(FileError, match="is a directory without files that can be read"):
        from_file(tmp_path)


@pytest.mark.parametrize(
    ("column", "label", "told"),
    [
        ("Englihs", None, "has no column 'Englihs'; did you mean 'english'"),
        ("zzz", None, "has no column 'zzz'; it has 'id', 'english' and 'spanish'"),
        ("english", "lable", "has no column 'lable'"),
        (None, None, "has the columns 'id', 'english' and 'spanish'; name one with --column"),
    ],
)
def test_columns_that_are_not_there(written, column, label, told):
    path = written("a.csv", "id,english,spanish\n1,a,b\n")
    with pytest.raises(ArgumentError, match=told):
        from_file(path, column, label)


def test_lines_have_no_columns(written):
    with pytest.raises(ArgumentError, match="has one text per line and no columns"):
        from_file(written("a.txt", "a"), "text")


def test_an_example_without_a_label(written):
    with pytest.raises(FileError, match="has no label in line 3"):
        from_file(written("a.csv", "text,label\na,b\nc,\n"), label="label")


def test_arguments():
    assert from_arguments(["a", "b"]).texts == ["a", "b"]
    for texts, told in (
        ([" "], "the text is empty"),
        (["a", "\u200b"], "text 2 is empty"),
        (["a", "b\udcff"], "text 2 holds bytes that are not UTF-8"),
    ):
        with pytest.raises(ArgumentError, match=told):
            from_arguments(texts)

"""A folder of awkward files, as people have them, and what another reader makes of each.

Arrow reads each table when it is told by hand how the table is written. What Arrow cannot read, an
array in JSON for example, is read with the standard library, told by hand too.
"""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

LETTERS = "Café crème, “très” bon – 5 €"
GERMAN = ["Müller grüßt; herzlich", "1,5 Äpfel", "naïve façade"]


@dataclass(frozen=True)
class Awkward:
    """A file, how a person asks for it, and what becomes of it."""

    name: str
    content: bytes
    peer: Callable[[Path], list[str | None]] | None = None
    """Reads the texts, told by hand how the file is written; None if the file is refused."""
    refused: str = ""
    """What the one line says, a regular expression."""
    column: str | None = None
    reading: dict[str, str] = field(default_factory=dict)
    note: str = ""
    """What is said of a file that may not be meant as it is read."""


def as_csv(
    delimiter: str = ",",
    *,
    column: str = "text",
    encoding: str = "utf8",
    skip: int = 0,
    quote: str | bool = '"',
    lone_cr: bool = False,
) -> Callable[[Path], list[str | None]]:
    def read(path: Path) -> list[str | None]:
        content: Any = str(path)
        if lone_cr:  # which Arrow does not split at
            content = io.BytesIO(path.read_bytes().replace(b"\r", b"\n"))
        table = pa.csv.read_csv(
            content,
            read_options=pa.csv.ReadOptions(encoding=encoding, skip_rows=skip, use_threads=False),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter, quote_char=quote, newlines_in_values=bool(quote)
            ),
            convert_options=pa.csv.ConvertOptions(column_types={column: pa.string()}),
        )
        return table[column].to_pylist()

    return read


def as_json_lines(*fields: str) -> Callable[[Path], list[str | None]]:
    def read(path: Path) -> list[str | None]:
        column = pa.json.read_json(str(path))[fields[0]]
        for name in fields[1:]:
            column = pa.compute.struct_field(column, name)
        return column.to_pylist()

    return read


def as_json(told: Callable[[Any], list[str | None]]) -> Callable[[Path], list[str | None]]:
    return lambda path: told(json.loads(path.read_bytes()))


def as_lines(encoding: str, end: str = "\n") -> Callable[[Path], list[str | None]]:
    return lambda path: path.read_bytes().decode(encoding).split(end)


def as_parquet(*fields: str) -> Callable[[Path], list[str | None]]:
    def read(path: Path) -> list[str | None]:
        column = pa.parquet.read_table(path)[fields[0]]
        for name in fields[1:]:
            column = pa.compute.struct_field(column, name)
        return column.to_pylist()

    return read


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), sink, row_group_size=2)
    return sink.getvalue()


def workbook() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        file.writestr("xl/worksheets/sheet1.xml", "<worksheet/>")
    return sink.getvalue()


def archive() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as file:
        file.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    return sink.getvalue()


def table(delimiter: str, *rows: str, end: str = "\n") -> str:
    """Rows whose fields are separated by / here."""
    return "".join(delimiter.join(row.split("/")) + end for row in rows)


ROWS = ("id/text/label", "1/A plain text/x", "2/Another one/y", "3/ /x", "4/The last/y")
STRAY = [
    f"{n}\t{text}\n" for n in range(70) for text in ('"Hello', 'he said "no"', "5' 3\" tall", "b")
]
ANSWER = {"data": [{"message": {"text": text}, "id": n} for n, text in enumerate("abc")], "next": 2}
OBJECTS = [{"text": "one", "n": 1}, {"n": 2, "text": None}, {"n": 3}, {"text": "fünf", "n": 5}]
LINES = "\n".join(map(json.dumps, OBJECTS)) + "\n"

FILES = [
    Awkward("comma.csv", table(",", *ROWS).encode(), as_csv()),
    Awkward("semicolon.csv", table(";", *ROWS).encode(), as_csv(";")),
    Awkward("tab.csv", table("\t", *ROWS).encode(), as_csv("\t")),
    Awkward("pipe.csv", table("|", *ROWS).encode(), as_csv("|")),
    Awkward("other.txt", table(";", *ROWS).encode(), as_csv(";"), reading={"delimiter": ";"}),
    Awkward("named.txt", table("|", *ROWS).encode(), as_csv("|"), reading={"delimiter": "pipe"}),
    Awkward(
        "decimal commas.csv",
        b"price;text\r\n1,5;Hello, world\r\n2,5;a, b, c\r\n",
        as_csv(";"),
    ),
    Awkward(
        "semicolons in texts.csv",
        b'n,text\n1,"I came; I saw"\n2,"he left; she stayed"\n',
        as_csv(),
    ),
    Awkward(
        "excel sep.csv",
        b"sep=;\r\nid;text\r\n1;Hello, world\r\n2;Bye\r\n",
        as_csv(";", skip=1),
    ),
    Awkward(
        "excel sep marked.csv",
        "\ufeffsep=|\r\nid|text\r\n1|grün; rot, blau\r\n".encode(),
        as_csv("|", skip=1),
    ),
    Awkward(
        "excel western.csv",
        f'text;label\r\n"{LETTERS}";gut\r\n'.encode("cp1252"),
        as_csv(";", encoding="cp1252"),
        reading={"encoding": "windows-1252"},
    ),
    Awkward(
        "excel western untold.csv",
        f'text;label\r\n"{LETTERS}";gut\r\n'.encode("cp1252"),
        refused=r"byte 16, in line 2, is 0xe9; if that is “Café”, .* --encoding windows-1252",
    ),
    Awkward(
        "wrong encoding.csv",
        "text\nнет\n".encode(),
        refused=r"is not ascii text: byte 5, in line 2, is 0xd0",
        reading={"encoding": "ascii"},
    ),
    Awkward(
        "cyrillic.csv",
        "id,text\n1,Привет\n2,нет\n".encode("cp1251"),
        as_csv(encoding="cp1251"),
        reading={"encoding": "windows-1251"},
    ),
    Awkward(
        "japanese.txt",
        "今日は\n良い天気\n".encode("shift_jis"),
        as_lines("shift_jis"),
        reading={"encoding": "shift_jis"},
    ),
    Awkward(
        "excel unicode.csv",
        "id\ttext\r\n1\tgrün\r\n2\t漢字 🙂\r\n".encode("utf-16"),
        as_csv("\t", encoding="utf-16"),
    ),
    Awkward("big end.txt", "\ufeffgrün\nrot 🙂".encode("utf-16-be"), as_lines("utf-16")),
    Awkward(
        "unmarked.txt",
        "grün\nrot, and more\n".encode("utf-16-le"),
        refused=r"looks like UTF-16 without a mark; if it is: --encoding utf-16-le",
    ),
    Awkward(
        "unmarked told.txt",
        "grün\nrot".encode("utf-16-le"),
        as_lines("utf-16-le"),
        reading={"encoding": "utf-16-le"},
    ),
    *(
        Awkward(
            f"unmarked {letters} {encoding}.txt",
            text.encode(encoding),
            refused=rf"looks like {encoding[:6].upper()} without a mark; if it is: "
            rf"--encoding {encoding}",
        )
        for letters, text in {
            "Cyrillic": "Привет мир\nЗаказ не пришёл\n",
            "one word": "Привет",
            "Chinese": "你好\n今天天气很好\n",
            "Arabic": "مرحبا بكم\nشكرا",
            "Hindi": "नमस्ते\nदुनिया",
            "emoji": "hi 🙂🙂\nyes",
            "English": "Hello\nyou\n",
        }.items()
        for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
    ),
    Awkward(
        "binary.txt",
        b"a\0\0\0\1\0\0\x02b\n\0\0\0\0",
        refused=r"is no text: 11 of its first 14 bytes are control .* --encoding utf-8",
    ),
    Awkward(
        "NUL.txt",
        b"a\0b\nc\n",
        as_lines("utf-8"),
        note=r"1 text has control characters, .* in line 1 of .*“a�b”",
    ),
    Awkward(
        "NUL told.txt",
        b"a\0b\nc\n",
        as_lines("utf-8"),
        reading={"encoding": "utf-8"},
        note=r"1 text has control characters, .* in line 1 of .*“a�b”; .* --encoding",
    ),
    Awkward(
        "controls.txt",
        b"fine\nnot \x02 so fine\n",
        as_lines("utf-8"),
        note=r"1 text has control characters, .* in line 2",
    ),
    Awkward(
        "hive.txt", b"id\x01text\n1\x01a\n2\x01b\n", as_csv("\x01"), reading={"delimiter": "\x01"}
    ),
    Awkward("archive.tar", archive(), refused="is a tar archive; unpack it"),
    Awkward("archive.tar.gz", gzip.compress(archive()), refused="is a tar archive; unpack it"),
    Awkward("marked.csv", "\ufefftext,n\ngrün,1\n".encode(), as_csv()),
    Awkward(
        "marked, told otherwise.csv",
        "\ufefftext,n\ngrün,1\n".encode(),
        as_csv(),
        reading={"encoding": "windows-1252"},
    ),
    Awkward("old mac.csv", b'n,text\r1,"a, b"\r2,c\r', as_csv(lone_cr=True)),
    Awkward("old mac.txt", "eins\rzwei\rdreißig".encode(), as_lines("utf-8", "\r")),
    Awkward("mixed ends.csv", b"n,text\r\n1,a\n2,b\r\n3,c", as_csv()),
    Awkward(
        "quoted.csv",
        b'"n","text"\n1,"a ""b"", c\nd"\n\n2,"""x"""\n',
        as_csv(),
    ),
    Awkward(
        "stray quotes.tsv",
        ("id\ttext\n" + "".join(STRAY)).encode(),
        as_csv("\t", quote=False),
    ),
    Awkward(
        "quoted names.tsv",
        b'"id"\t"text"\n"1"\t"two\nlines"\n"2"\t"a ""b"""\n',
        as_csv("\t"),
    ),
    Awkward(
        "quoted texts.tsv",
        b'id\ttext\n1\t"a ""b"""\n2\tc\n',
        as_csv("\t", quote=False),
        note=r"1 field is in quotes, .* in line 2 of .*: --delimiter tab",
    ),
    Awkward(
        "quoted by excel.tsv",
        b'id\ttext\n1\t"a ""b"""\n2\tc\n',
        as_csv("\t"),
        reading={"delimiter": "tab"},
    ),
    Awkward(
        "open quote.csv",
        b'id,text\n1,fine\n2,"not ended\n3,c\n',
        refused=r"is not valid CSV from line 3 on: a quoted field does not end",
    ),
    Awkward(
        "words after a quote.csv",
        b'id,text\n1,"Hello" he said\n',
        refused=r"is not valid CSV from line 2 on",
    ),
    Awkward(
        "swallowed rows.csv",
        b'id,text\n1,"open\n2,another\n3,closed"\n4,last\n',
        as_csv(),
        note=r"1 row has lines within quotes that look like rows, in line 2 of",
    ),
    Awkward(
        "swallowed, with spaces.csv",
        b'text, label\n"Hello, a\nBye, b\nWorld", c\n',
        as_csv(),
        note=r"1 row has lines within quotes that look like rows, in line 2 of",
    ),
    Awkward(
        "swallowed, with a few spaces.csv",
        b'text,n,label\n"Hello, 1, x\nBye, 2, y\nWorld",3,z\n',
        as_csv(),
        note=r"1 row has lines within quotes that look like rows, in line 2 of",
    ),
    Awkward(
        "torn.tsv",
        b'id\ttext\n1\t"a first line\nand a second"\n',
        refused=r"line 3 of .* has 1 field, but its header has 2; if the quote in line 2 begins a "
        "field of several lines: --delimiter tab",
    ),
    Awkward(
        "swallowed, one column.csv",
        b'text\n"Hello\n' + b"a row\n" * 7 + b'it is 5"\nnext\n',
        as_csv(),
        note=r"1 row has lines within quotes that look like rows, in line 2 of .*“Hello a row",
    ),
    Awkward(
        "prose in one column.csv",
        b'text\n"Dear all,\n\nI write, and hope"\nand more\n',
        as_csv(),
    ),
    Awkward(
        "pandas of one column.tsv",
        b'text\n"a first line\nand a second"\nc\n',
        as_csv("\t", quote=False),
        note=r"1 field begins with a quote, and a later one ends with it: .* in line 2 of .*"
        "--delimiter tab",
    ),
    Awkward(
        "pandas of one column told.tsv",
        b'text\n"a first line\nand a second"\nc\n',
        as_csv("\t"),
        reading={"delimiter": "tab"},
        note="1 row has lines within quotes that look like rows",
    ),
    Awkward(
        "prose in quotes.csv",
        b'id,text\n1,"Dear all,\nI write, and hope"\n2,c\n',
        as_csv(),
    ),
    Awkward(
        "uneven.csv",
        b"id,text\n1,a\n2,b, c\n",
        refused=r"line 3 of .* has 3 fields, but its header has 2",
    ),
    Awkward(
        "commas in one column.csv",
        b"text\nHello, world\nBye\n",
        refused=r"line 2 of .* has 2 fields, but its header has 1; .* or name the file \.txt",
    ),
    Awkward(
        "two delimiters.csv",
        b"a,b;text\n1,2;3\n2,3;4\n",
        refused=r"may be separated by commas or semicolons; say which, as in --delimiter",
    ),
    Awkward(
        "carets.csv",
        b"id^text\n1^a\n2^b\n",
        refused=r"“id\^text”, is one column, but looks like 2 separated by '\^': --delimiter '\^'",
    ),
    Awkward("carets told.csv", b"id^text\n1^a\n2^b\n", as_csv("^"), reading={"delimiter": "^"}),
    Awkward(
        "told wrong.csv",
        table(",", *ROWS).encode(),
        refused=r"is one column, but looks like 3 separated by comma: --delimiter comma",
        reading={"delimiter": "semicolon"},
    ),
    Awkward("same names.csv", b"text,text\na,b\n", refused="has 2 columns 'text'"),
    Awkward("header alone.csv", b"id,text\n", refused="is empty: there is nothing to read"),
    Awkward(
        "no header.csv",
        b"I love this film.\nI hate it\n",
        lambda path: as_csv(column="I love this film.")(path),
        note="1 first line that names a column looks like a text, in line 1",
    ),
    Awkward(
        "short and no header.csv",
        b"Hello there\nGood day\nBye\n",
        as_csv(column="Hello there"),
        note="1 first line that names a column looks like a text, in line 1",
    ),
    Awkward(
        "words and no header.csv",
        b"apple\npear\nplum\n",
        as_csv(column="apple"),
        note="1 first line that names a column looks like a text, in line 1",
    ),
    Awkward(
        "another name.csv",
        b"review\nA fine film that I liked\nNot at all\n",
        as_csv(column="review"),
    ),
    Awkward(
        "commented.csv",
        b"# exported 2024\ntext\nhello\n",
        as_csv(column="# exported 2024"),
        note="1 first line that names a column begins with #, in line 1 .*: .*comment, remove it",
    ),
    Awkward(
        "commented table.csv",
        b"# exported 2024\nid,text\n1,hello\n",
        refused="line 2 of .* has 2 fields, but its header has 1; .*the first line is a comment",
    ),
    Awkward("long.csv", b"text,n\n" + b"long " * 30_011 + b",1\n", as_csv()),
    Awkward(
        "array.json",
        json.dumps(OBJECTS, indent=1).encode(),
        as_json(lambda found: [item.get("text") for item in found]),
    ),
    Awkward(
        "array in a line.jsonl",
        json.dumps(OBJECTS).encode(),
        as_json(lambda found: [item.get("text") for item in found]),
    ),
    Awkward("texts.json", b'["one", "two \\u00e9", " "]', as_json(list)),
    Awkward(
        "nested.json",
        json.dumps([{"data": {"text": "a"}}, {"data": None}, {"data": {"text": "b"}}]).encode(),
        as_json(lambda found: [(item["data"] or {}).get("text") for item in found]),
        column="data.text",
    ),
    Awkward(
        "answer.json",
        json.dumps(ANSWER, indent=2).encode(),
        as_json(lambda found: [item["message"]["text"] for item in found["data"]]),
        column="message.text",
    ),
    Awkward(
        "answer by its path.json",
        json.dumps(ANSWER).encode(),
        as_json(lambda found: [item["message"]["text"] for item in found["data"]]),
        column="data.message.text",
    ),
    Awkward(
        "choices.jsonl",
        b'{"choices": [{"text": "a"}]}\n{"choices": []}\n{"choices": [{"text": "b"}, {}]}\n',
        lambda path: ["a", None, "b"],
        column="choices.0.text",
    ),
    Awkward(
        "any item.jsonl",
        b'{"m": [{"text": "a"}, {"text": "b"}]}\n{"m": []}\n{"m": [{"text": "c"}]}\n',
        lambda path: ["b", None, None],
        column="m.1.text",
    ),
    Awkward(
        "any item of texts.jsonl",
        b'{"m": ["a", "b"]}\n{"m": ["c", "d", "e"]}\n',
        lambda path: [None, "e"],
        column="m.2",
    ),
    Awkward(
        "any item by its path.json",
        b'{"data": [{"m": [{"text": "a"}, {"text": "b"}]}]}',
        lambda path: ["b"],
        column="data.m.1.text",
    ),
    Awkward(
        "no item.jsonl",
        b'{"m": [{"text": "a"}]}\n',
        refused=r"has no column 'm\.1\.txt'; did you mean 'm\.0\.text'",
        column="m.1.txt",
    ),
    Awkward(
        "text beside a list.json",
        b'{"text": "the main text", "replies": [{"text": "r1"}, {"text": "r2"}]}',
        as_json(lambda found: [found["text"]]),
        note=r"1 file has lists of objects beside its own text, .*“replies”; .*replies\.text",
    ),
    Awkward(
        "list beside a text.json",
        b'{"text": "the main text", "replies": [{"text": "r1"}, {"text": "r2"}]}',
        as_json(lambda found: [reply["text"] for reply in found["replies"]]),
        column="replies.text",
    ),
    Awkward(
        "text beside two lists.json",
        b'{"text": "the main text", "replies": [{"text": "r1"}], "tags": [{"text": "t"}]}',
        as_json(lambda found: [found["text"]]),
        note="1 file has lists of objects beside its own text, .*“replies, tags”",
    ),
    Awkward(
        "text beside a list within.json",
        b'{"post": {"text": "the main text", "replies": [{"text": "r1"}]}}',
        refused=r"has the columns 'post\.text', .*; name one with --column",
    ),
    Awkward(
        "text beside a list within told.json",
        b'{"post": {"text": "the main text", "replies": [{"text": "r1"}]}}',
        as_json(lambda found: [found["post"]["text"]]),
        column="post.text",
        note="1 file has lists of objects beside its own text, .*“post.replies”",
    ),
    Awkward(
        "title beside a list.json",
        b'{"title": "the main text", "replies": [{"body": "r1"}, {"body": "r2"}]}',
        as_json(lambda found: [reply["body"] for reply in found["replies"]]),
        note=r"1 text is left out, .*“title: the main text”; if it is meant, name it",
    ),
    Awkward(
        "title told.json",
        b'{"title": "the main text", "replies": [{"body": "r1"}, {"body": "r2"}]}',
        as_json(lambda found: [found["title"]]),
        column="title",
        note="1 file has lists of objects",
    ),
    Awkward(
        "NaN.jsonl",
        b'{"text": "a"}\n{"text": NaN}\n',
        lambda path: ["a", None],
    ),
    Awkward(
        "two lists.json",
        b'{"data": [{"text": "a"}], "errors": [{"text": "b"}]}',
        refused=r"holds 2 lists of objects, 'data' and 'errors'",
    ),
    Awkward(
        "columns.json",
        b'{"text": ["a", "b"], "n": [1, 2]}',
        as_json(lambda found: found["text"]),
    ),
    Awkward(
        "pandas.json",
        b'{"text": {"0": "a", "1": "b"}, "n": {"0": 1, "1": 2}}',
        as_json(lambda found: list(found["text"].values())),
    ),
    Awkward("lines.jsonl", LINES.encode(), as_json_lines("text")),
    Awkward("lines.ndjson", LINES.encode(), as_json_lines("text")),
    Awkward("lines.json", LINES.encode(), as_json_lines("text")),
    Awkward(
        "nested.jsonl",
        b'{"data": {"text": "a"}}\n{"data": {"text": "b"}}\n',
        as_json_lines("data", "text"),
        column="data.text",
    ),
    Awkward(
        "broken.jsonl",
        b'{"text": "a"}\n{"text": "b"\n{"text": "c"}\n',
        refused=r"line 2 of .* is not JSON",
    ),
    Awkward(
        "cut short.json",
        b'[{"text": "a"},\n{"text": "b"},\n{"te',
        refused=r"line 3 of .* is not JSON",
    ),
    Awkward(
        "json in texts.csv",
        b'id,text\n1,"{""a"": ""b""}"\n2,c\n',
        as_csv(),
        note=r"1 text is JSON, read as it stands, in line 2 of .*: “\{\"a\": \"b\"\}”",
    ),
    Awkward(
        "lines.txt",
        LINES.encode(),
        as_lines("utf-8"),
        note=r"4 lines are JSON, read as texts, .* name the file \.jsonl",
    ),
    Awkward(
        "tabs.txt",
        b"1\ta\n2\tb\n",
        as_lines("utf-8"),
        note=r"2 lines with tabs are one text each, .*: --delimiter tab",
    ),
    Awkward(
        "lost.txt",
        "caf\ufffd\nfine\n".encode(),
        as_lines("utf-8"),
        note=r"1 text has the mark of a character that was lost before \(U\+FFFD\)",
    ),
    Awkward("nulls.parquet", parquet(text=["a", None, "b", None]), as_parquet("text")),
    Awkward(
        "large.parquet",
        parquet(text=pa.array(["a", "b", "a"], pa.large_string()), n=[1, None, 3]),
        as_parquet("text"),
    ),
    Awkward(
        "repeated.parquet",
        parquet(text=pa.array(["a", None, "a"]).dictionary_encode()),
        as_parquet("text"),
    ),
    Awkward(
        "nested.parquet",
        parquet(id=[1, 2, 3], data=[{"text": "a", "n": 1}, None, {"text": "b", "n": 2}]),
        as_parquet("data", "text"),
        column="data.text",
    ),
    *(
        Awkward(
            f"{column}.parquet",
            parquet(
                m=[[{"text": "a"}, {"text": "b"}], [], None],
                s=[{"m": [{"text": "c"}]}, None, {"m": None}],
                w=[["d", "e"], ["f"], None],
            ),
            peer,
            column=column,
        )
        for column, peer in {
            "m.0.text": lambda path: ["a"],
            "m.1.text": lambda path: ["b"],
            "s.m.0.text": lambda path: ["c"],
            "w.1": lambda path: ["e"],
        }.items()
    ),
    Awkward("packed.csv.gz", gzip.compress(table(";", *ROWS).encode()), as_csv(";")),
    Awkward(
        "packed.csv.zst",
        pa.compress(table(",", *ROWS).encode(), "zstd", asbytes=True),
        as_csv(),
    ),
    Awkward(
        "packed.jsonl.zst", pa.compress(LINES.encode(), "zstd", asbytes=True), as_json_lines("text")
    ),
    Awkward("packed.csv", gzip.compress(b"a,b\n1,2\n"), refused=r"name that ends in \.gz"),
    Awkward("workbook.csv", workbook(), refused="is a workbook or another zip archive; save the"),
]
"""The files."""

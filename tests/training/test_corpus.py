"""Text of files of every kind, and what is made of it on disk."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
from collections import Counter

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.common.files import is_blank
from pellucid.errors import ArgumentError, FileError, MissingExtraError
from pellucid.text import text_inputs, utf8_files
from pellucid.text.tokenizer import Tokenizer
from pellucid.training.corpus import (
    Piece,
    Tally,
    dataset_cache,
    documents,
    of_documents,
    prepare,
    prepare_rows,
    rows,
    text_files,
)
from pellucid.training.corpus import (
    draw as draws,
)
from pellucid.training.vocabulary import END, MASK, byte_pairs

PACKINGS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pyarrow.compress(content, "zstd", asbytes=True),
}


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def table(rows, delimiter=","):
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    return file.getvalue()


def parquet(columns):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink, row_group_size=2)
    return sink.getvalue()


# ------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("packing", PACKINGS)
def test_each_kind_of_file_packed_or_not(written, packing):
    pack = PACKINGS[packing]
    texts = ["one", "two\nlines", "trois é"]
    wanted = [Piece(text, True) for text in texts]
    lines = "\n".join(json.dumps({"text": text}) for text in texts)
    for name, content in (
        ("a.csv", table([["text"], *([text] for text in texts)])),
        ("a.tsv", table([["id", "text"], *(["1", text] for text in texts)], "\t")),
        ("a.jsonl", lines),
    ):
        path = written(name + packing, pack(content.encode()))
        assert list(documents([path])) == wanted
        assert text_inputs.from_file(path).texts == texts
    plain = written("a.txt" + packing, pack("\ufeffone\r\ntwo é\n".encode()))
    assert list(documents([plain, plain])) == [Piece("one\ntwo é\n", True)] * 2


def test_parquet_is_read_in_its_order(written):
    path = written("a.parquet", parquet({"n": range(5), "body": list("abcde")}))
    assert [text for text, _ in documents([path], "body")] == list("abcde")
    assert list(rows([path], ["body", "n"]))[3] == ("d", "3")
    assert list(rows([path], [2, 1]))[3] == ("d", "3")


@given(
    text=st.text(st.sampled_from("ab \n\ré\u4e00"), min_size=1),
    piece=st.integers(1, 40),
    block=st.integers(1, 9),
)
def test_pieces_are_the_text(tmp_path_factory, text, piece, block):
    path = tmp_path_factory.mktemp("a") / "a"
    path.write_bytes(text.encode())
    same = io.StringIO(text, newline=None).read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "PIECE", piece)
        patch.setattr(utf8_files, "BLOCK", block)
        if is_blank(text):
            with pytest.raises(FileError, match="is empty"):
                list(documents([path]))
            return
        found = list(documents([path]))
    assert same.endswith("".join(one.text for one in found))
    assert is_blank(same.removesuffix("".join(one.text for one in found)))
    assert [one.begins for one in found] == [True] + [False] * (len(found) - 1)
    assert max(len(one.text) for one in found) <= piece


def test_pieces_end_where_lines_or_words_do(written):
    words = "word " * text_files.PIECE
    found = list(documents([written("a.txt", words.replace("word word ", "word word\n"))]))
    assert all(one.text.endswith("\n") for one in found)
    found = list(documents([written("a.txt", words)]))
    assert all(one.text.startswith(" word") for one in found[1:])


def test_lines_of_a_million_characters(written):
    line = "x" * 1_000_003
    found = list(documents([written("a.txt", line)]))
    assert sum(len(one.text) for one in found) == len(line)
    (row,) = rows([written("a.csv", table([["a", "b"], [line, "y"]]))], ["a", "b"])
    assert row == (line, "y")


def test_blank_documents_are_left_out_and_counted(written):
    tally = Tally()
    path = written("a.csv", "text,label\none,1\n ,2\n\u200b,3\ntwo,4\n")
    assert [text for text, _ in documents([path], "text", tally)] == ["one", "two"]
    assert list(rows([path], ["text", "label"], labelled=True, tally=tally))[1] == ("two", "4")
    assert tally.blank == 4


def test_rows_without_a_header(written):
    wanted = [("a", "b"), ("d", "e")]
    assert list(rows([written("a.csv", 'a,x,b\nd,"y,z",e\n')], [1, 3])) == wanted
    assert list(rows([written("a.tsv", "a\tb\nd\te\n")], [1, 2])) == wanted
    assert list(rows([written("a.txt", "a\tb\n\nd\te\n")], [1, 2])) == wanted
    assert list(rows([written("quoted", 'a\t"b\n')], [2, 1])) == [('"b', "a")]
    for name, content in (("a.csv", "a,b\nd,e\n"), ("a.txt", "a\tb\nd\te\n")):
        found = documents([written(name, content)], 2)
        assert [text for text, _ in found] == ["b", "e"]


def test_labels_lose_the_spaces_around_them(written):
    path = written("a.csv", "text,label\n a , b \n")
    assert list(rows([path], ["text", "label"], labelled=True)) == [(" a ", "b")]
    assert list(rows([path], ["text", "label"])) == [(" a ", " b ")]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"", r"'.*a\.txt' is empty: there is nothing to read"),
        ("a.txt", b" \n" * 10**6, "is empty"),
        ("a.txt.gz", b"", "is empty"),
        ("a.csv", b"text\n", "has a header but no rows"),
        ("a.csv", b"text\n \n \n", "has no text: 2 rows, all blank"),
        ("a.jsonl", b"\n", "is empty"),
        ("a.csv", b"text,b\n1,2\n1,2,3\n", r"line 3 of '.*' has 3 fields, but its header has 2"),
        ("a.csv", b"text,b\n1\n", "a field that holds a comma goes in double quotes"),
        ("a.tsv", b"text\tb\n1\n", "line 2 of '.*' has 1 field, but its header has 2"),
        ("a.txt", b"a\n" * 10**5 + b"\xff", "byte 200000, in line 100001, is 0xff"),
        (
            "a.txt",
            b"a" * (utf8_files.BLOCK - 1) + b"\xc3\x28",
            f"byte {utf8_files.BLOCK - 1}, in line 1, is 0xc3",
        ),
        ("a.txt", b"\xef\xbb\xbfa\n\xc3", "byte 5, in line 2, is 0xc3"),
        ("a.jsonl", b'{"text": "\\ud800"}', "text in line 1 of '.*' has an unpaired surrogate"),
        ("a.gz", gzip.compress(os.urandom(999))[:500], "is cut short"),
        ("a.bz2", bz2.compress(os.urandom(999))[:500], "is cut short"),
        ("a.xz", lzma.compress(os.urandom(999))[:500], "is cut short"),
        ("a.zst", PACKINGS[".zst"](os.urandom(999))[:500], "cannot read .*: Truncated"),
        ("a.gz", b"no packing", "cannot read .*: Not a gzipped file"),
        ("a.xz", b"no packing", "cannot read .*: Input format not supported"),
        ("a.parquet", b"no table", "cannot read"),
    ],
)
def test_files_that_are_none(written, name, content, told):
    with pytest.raises(FileError, match=told):
        list(documents([written(name, content)]))


def test_files_that_are_not_there(tmp_path):
    for name in ("a.txt", "a.csv.gz", "a.zst", "a.parquet"):
        with pytest.raises(FileError, match=r"cannot read '.*': .*No such file"):
            list(documents([tmp_path / name]))
    with pytest.raises(FileError, match="Is a directory"):
        list(documents([tmp_path]))


@pytest.mark.parametrize(
    ("columns", "error", "told"),
    [
        (["text", "labels"], ArgumentError, "has no column 'labels'; did you mean 'label'"),
        (["text", 2], ArgumentError, "all names or all numbers, not 'text' and 2"),
        ([1, 3], ArgumentError, "has no column 3; it has 2 columns"),
        ([0, 1], ArgumentError, "has no column 0"),
        (["text", "label"], FileError, r"'.*a\.csv' has no label in line 3"),
        ([1, 2], FileError, r"'.*a\.csv' has no label in column 2 in line 3"),
    ],
)
def test_columns_that_are_none(written, columns, error, told):
    path = written("a.csv", "text,label\na,b\nc,\n")
    with pytest.raises(error, match=told):
        list(rows([path], columns, labelled=True))


def test_columns_of_one_name(written):
    path = written("a.csv", "text,label,text\na,b,c\n")
    with pytest.raises(ArgumentError, match="has 2 columns 'text'; their names must differ"):
        list(documents([path], "text"))
    assert list(rows([path], ["label"])) == [("b",)]


def test_columns_of_files_that_have_none(written):
    with pytest.raises(ArgumentError, match="has one text per line and no columns"):
        list(documents([written("a.txt", "a")], "text"))
    for read in (lambda path: rows([path], [1]), lambda path: documents([path], 1)):
        with pytest.raises(ArgumentError, match="have names, not numbers"):
            list(read(written("a.jsonl", '{"a": "b"}')))
    with pytest.raises(FileError, match=r"line 2 of '.*' has 1 field, but its first line has 2"):
        list(rows([written("b.txt", "a\tb\nc\n")], [1, 2]))


def test_zst_without_pyarrow(written, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r".zst files need pyarrow: pip install 'pell"):
        list(documents([written("a.zst", b"")]))


# -------------------------------------------------------------------- documents, as ids on disk


def sentences(count, first=0):
    return [
        f"The number {number} is followed by {number + 1}."
        for number in range(first, first + count)
    ]


def decoded(tokenizer, sequences):
    return [tokenizer.decode(one.tolist()) for one in sequences]


def test_the_last_documents_are_held_out(written, tmp_path):
    texts = sentences(100)
    made = prepare(
        [written("a.csv", table([["text"], *([text] for text in texts)]))], tmp_path / "made"
    )
    assert decoded(made.tokenizer, made.training) + decoded(made.tokenizer, made.held_out) == texts
    assert 5 <= len(made.held_out) <= 7
    assert made.held_out.bytes == sum(len(text) for text in texts[-len(made.held_out) :])
    mark = made.tokenizer.inner.token_to_id(END)
    assert all(one[0] == mark and (one != mark).sum() == len(one) - 1 for one in made.training)


def test_the_end_of_a_single_document_is_held_out(written, tmp_path):
    text = "\n".join(sentences(100))
    made = prepare([written("a.txt", text)], tmp_path / "made")
    (training,), (held_out,) = (
        decoded(made.tokenizer, part) for part in (made.training, made.held_out)
    )
    assert training + held_out == text
    assert training.endswith("\n")
    assert 0.05 <= len(held_out) / len(text) < 0.07


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_the_share_that_is_held_out(lengths):
    pieces = [Piece("x" * length, True) for length in lengths]
    total = sum(lengths)
    boundary = of_documents._survey(pieces).boundary
    assert (1 - 0.2) * total - 1 <= boundary <= 0.95 * total
    sides = [
        list(of_documents._between(pieces, *ends)) for ends in ((0, boundary), (boundary, None))
    ]
    assert sum(len(text) for side in sides for text, _ in side) == total
    assert all(side[0].begins for side in sides if side)


def test_a_long_document_is_one_sequence(written, tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "PIECE", 100)
    monkeypatch.setattr(dataset_cache, "_BATCH_TEXTS", 3)
    text = "\n".join(sentences(50))
    files = [written("a.txt", text), written("b.txt", text)]
    other = "\n".join(sentences(50, 50))
    made = prepare(files, tmp_path / "made", held_out=[written("c.txt", other)])
    assert decoded(made.tokenizer, made.held_out) == [other]
    assert decoded(made.tokenizer, made.training) == [text, text]


def test_documents_longer_than_may_be_are_several(written, tmp_path):
    text = "\n".join(sentences(50))
    file = written("a.txt", text)
    made = prepare(
        [file],
        tmp_path / "made",
        held_out=[written("b.txt", "Another text.")],
        longest=17,
        marks=[MASK],
        ends=f"{END} $A {END}",
    )
    assert set(made.training.lengths[:-1]) == {17}
    assert all(one[0] == one[-1] == 0 for one in made.training)
    assert "".join(decoded(made.tokenizer, made.training)) == text
    with pytest.raises(ArgumentError, match="longest must be more than 2 special tokens, not 2"):
        prepare([file], tmp_path / "other", longest=2, ends=f"{END} $A {END}")


def test_a_text_that_spells_a_mark_gets_none(written, tmp_path):
    texts = [f"{text} {END} is a mark." for text in sentences(50)]
    made = prepare(
        [written("a.csv", table([["text"], *([text] for text in texts)]))], tmp_path / "made"
    )
    mark = made.tokenizer.inner.token_to_id(END)
    assert (np.asarray(made.training.ids) == mark).sum() == len(made.training)
    assert decoded(made.tokenizer, made.training)[0] == texts[0]


LAST = ["vocabulary", "training", "held-out"]


def test_what_was_made_is_made_once(written, tmp_path):
    def told(what, done, total):
        stages.append(what)

    text = "\n".join(sentences(100))
    file, stages = written("a.txt", text), []
    for again in (False, True):
        stages.clear()
        made = prepare([file], tmp_path / "made", progress=told)
        assert stages == ([] if again else ["reading", "comparing", *LAST])
    assert made.left_out == (Tally(), Tally())
    (tmp_path / "made" / "training" / "ids").write_bytes(b"x")
    prepare([file], tmp_path / "made", progress=told)
    assert len(stages) == 5, "what is damaged is made anew"
    prepare([file], tmp_path / "made", vocabulary=300, progress=told)
    assert len(stages) == 10
    file.write_text(text + "More.")
    again = prepare([file], tmp_path / "made", tokenizer=made.tokenizer, progress=told)
    assert stages[10:] == ["reading", "comparing", *LAST[1:]]
    assert again.tokenizer is made.tokenizer


def test_what_was_not_finished_is_made_anew(written, tmp_path):
    file = written("a.txt", "\n".join(sentences(100)))
    prepare([file], tmp_path / "made")

    def stop(what, done, total):
        if what == "training":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([file], tmp_path / "made", vocabulary=300, progress=stop)
    assert not (tmp_path / "made" / "about.json").exists()
    assert len(prepare([file], tmp_path / "made").training) == 1


def test_documents_equal_to_held_out_ones_are_not_learnt(written, tmp_path):
    texts = sentences(100)
    again = [f" {texts[97].upper()} ", *texts, texts[3]]  # one of the last, and one of the first
    made = prepare(
        [written("a.csv", table([["text"], *([text] for text in again)]))], tmp_path / "made"
    )
    learnt, judged = (decoded(made.tokenizer, x) for x in (made.training, made.held_out))
    assert judged == [*texts[-len(judged) + 1 :], texts[3]]
    assert learnt == [text for text in texts[: -len(judged) + 1] if text != texts[3]]
    assert made.left_out == (Tally(held_out=2), Tally())
    file = written("b.csv", table([["text"], *([text] for text in texts)]))
    with pytest.raises(FileError, match="all training texts are in the held-out data, too"):
        prepare([file], tmp_path / "none", held_out=[file])


def test_too_little_text(written, tmp_path):
    file = written("a.txt", "One line.\n")
    told = r"training needs at least 1,000 characters of text, but '.*a.txt' has 10"
    with pytest.raises(FileError, match=told):
        prepare([file], tmp_path / "made")
    with pytest.raises(FileError, match="but the 2 files have 20"):
        prepare([file, file], tmp_path / "made")
    with pytest.raises(FileError, match=r"cannot write '.*a.txt'"):
        prepare([file], file)
    with pytest.raises(FileError, match=r"cannot read '.*none': No such file"):
        prepare([tmp_path / "none"], tmp_path / "made")


# ------------------------------------------------------------------------- rows, as ids on disk


@pytest.fixture
def examples(written):
    """Each text twice, once with a space; its label is its last digit but 7."""
    found = [
        (text + " " * twice, str(number % 7 + 5))
        for twice in (0, 1)
        for number, text in enumerate(sentences(150))
    ]
    return written("a.csv", table([["text", "label"], *found])), found


def test_examples_and_their_labels(examples, tmp_path):
    file, wanted = examples
    made = prepare_rows([file], tmp_path / "made", ["text", "label"], labelled=True)
    assert made.names == ("5", "6", "7", "8", "9", "10", "11")
    found = []
    for side in (made.training, made.held_out):
        (texts,), labels = side.texts, side.labels
        assert labels.dtype == np.int64
        assert all(one[-1] == made.tokenizer.inner.token_to_id(END) for one in texts)
        names = [made.names[number] for number in labels]
        found.append(list(zip(decoded(made.tokenizer, texts), names, strict=True)))
    assert sorted(found[0] + found[1]) == sorted(wanted)
    assert len(found[1]) == 14, "5 % of 300, but both of a pair"
    apart = [{text.strip() for text, _ in side} for side in found]
    assert not apart[0] & apart[1]


def test_labels_are_shared_evenly_and_none_is_lost(written, tmp_path):
    """Of 400 rows, 20 are held out: as many of each label as its share, and equal texts whole."""
    counts = {"often": 240, "now and then": 120, "seldom": 38, "once": 2}
    labels = [name for name, count in counts.items() for _ in range(count)]
    rows = [[f"Text {number}", label] for number, label in enumerate(labels)]
    rows[-1][0] = f" TEXT  {len(rows) - 2}"  # the rarest label has one text, twice
    made = prepare_rows(
        [written("a.csv", table([["text", "label"], *rows]))],
        tmp_path / "made",
        ["text", "label"],
        labelled=True,
    )
    names = [made.names[number] for number in made.held_out.labels]
    assert Counter(names) == {"often": 12, "now and then": 6, "seldom": 2}
    assert made.kind == "label"
    assert not set(made.training.keys[0].tolist()) & set(made.held_out.keys[0].tolist())
    assert made.training.keys[0][-1] == made.training.keys[0][-2]


def test_several_labels_and_numbers_are_kept(written, tmp_path):
    cells = [*["a; b", "b", "c|a", ";"] * 5, *["a; b", "b", "c|a", ""] * 5]
    rows = [[f"Text {number}", cell] for number, cell in enumerate(cells)]
    file = written("a.csv", table([["text", "label"], *rows]))
    read = {"columns": ["text", "label"], "labelled": True}
    made = prepare_rows([file], tmp_path / "made", predict="labels", **read)
    assert (made.names, made.kind) == (("a", "b", "c"), "labels")
    found = {
        text: row.tolist()
        for side in (made.training, made.held_out)
        for text, row in zip(decoded(made.tokenizer, side.texts[0]), side.labels, strict=True)
    }
    has = [[True, True, False], [False, True, False], [True, False, True], [False] * 3]
    assert found == {f"Text {number}": has[number % 4] for number in range(40)}
    numbers = [[f"Text {number}", str(number / 8 - 1)] for number in range(40)]
    file.write_text(table([["text", "label"], *numbers]))
    made = prepare_rows([file], tmp_path / "other", **read)
    assert (made.names, made.kind) == ((), "number")
    assert sorted([*made.training.labels, *made.held_out.labels]) == [n / 8 - 1 for n in range(40)]
    assert len(made.held_out.labels) == 2


def test_which_rows_are_held_out_depends_on_the_seed_alone(examples, tmp_path):
    def held_out(name, seed, path):
        made = prepare_rows([path], tmp_path / name, ["text", "label"], labelled=True, seed=seed)
        return {text.strip() for text in decoded(made.tokenizer, made.held_out.texts[0])}

    file, found = examples
    turned = file.with_name("b.csv")
    turned.write_text(table([["text", "label"], *found[::-1]]))
    assert held_out("a", 0, file) == held_out("b", 0, turned) != held_out("c", 1, file)


def test_targets_are_encoded_by_the_tokenizer_of_the_target(written, tmp_path):
    class Pair(Tokenizer):
        of_target = byte_pairs([f"{number} rojo azul" for number in range(99)], 263, ends="$A")

    tokenizer = Pair(
        byte_pairs([f"{number} red blue" for number in range(99)], 263, ends="$A").inner
    )
    rows = [(f"{number} red", f"{number} rojo") for number in range(13)]
    file = written("a.tsv", "\n".join(map("\t".join, rows)))
    other = written("b.tsv", "one red\tone rojo\n12  RED\tdoce rojo")
    made = prepare_rows([file], tmp_path / "made", (1, 2), held_out=[other], tokenizer=tokenizer)
    assert made.left_out[0].held_out == 1
    rows.pop()  # which is held out
    for column, reader in enumerate((tokenizer, tokenizer.of_target)):
        ids = [sequence.tolist() for sequence in made.training.texts[column]]
        assert ids == reader.encode([row[column] for row in rows])
    assert tokenizer.encode(["rojo"]) != tokenizer.of_target.encode(["rojo"])


def test_pairs(written, tmp_path):
    lines = [f"{text}\t{text.upper()}\tx" for text in sentences(50)]
    lines[7] = "the other is missing\t\tx"
    lines[9] = f"long\t{'much ' * 1000}\tx"
    others = [f"{text}\t{text.upper()}\tx" for text in sentences(5, 90)]
    others += [f"long\t{'very ' * 1000}\tx"] * 2
    made = prepare_rows(
        [written("a.txt", "\n".join(lines))],
        tmp_path / "made",
        [2, 1],
        held_out=[written("b.txt", "\n".join(others))],
        longest=50,
    )
    assert (made.left_out, made.names, made.training.labels) == (
        (Tally(blank=1, too_long=1), Tally(too_long=2)),
        (),
        None,
    )
    for side, count in ((made.training, 48), (made.held_out, 5)):
        upper, plain = (decoded(made.tokenizer, texts) for texts in side.texts)
        assert [text.upper() for text in plain] == upper
        assert len(plain) == count
    stages = []
    prepare_rows(
        [tmp_path / "a.txt"],
        tmp_path / "made",
        [2, 1],
        held_out=[tmp_path / "b.txt"],
        longest=50,
        progress=lambda *told: stages.append(told),
    )
    assert stages == []


@given(st.lists(st.integers(0, 99), min_size=1, max_size=200), st.integers(0, 3), st.integers(1, 8))
def test_what_is_drawn(numbers, seed, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draws, "MOST_HELD_OUT_ROWS", most)
        patch.setattr(draws, "POOL", 2 * most)
        draw = draws.Draw(seed)
        for number in numbers:
            draw.add(str(number))
        chosen = draw.chosen()
    held_out = [number for number in numbers if draw.number(str(number)) in chosen]
    assert held_out
    wanted = min(most, max(1, round(0.05 * len(numbers))))
    assert len(held_out) <= wanted or len(set(held_out)) == 1
    assert draw.different == min(2 * most, len(set(numbers)))


@pytest.mark.parametrize("held_out", [False, True])
def test_what_is_no_regular_file_is_refused(held_out, written, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    file = written("a.txt", "\n".join(sentences(100)))
    for other, told in ((pipe, "it is not a regular file"), (tmp_path, "it is a directory")):
        files = {"files": [file], "held_out": [other]} if held_out else {"files": [other]}
        with pytest.raises(
            FileError, match=rf"cannot read '{other}': {told}; training reads files"
        ):
            prepare(directory=tmp_path / "made", **files)
    assert not (tmp_path / "made").exists()


def test_too_few_rows(written, tmp_path):
    def make(content, **options):
        file = written("a.csv", "text,label\n" + content)
        prepare_rows([file], tmp_path / "made", ["text", "label"], labelled=True, **options)

    with pytest.raises(FileError, match=r"needs at least 10 different texts, but '.*' has 1"):
        make("a,b\n" * 20)
    with pytest.raises(FileError, match=r"all rows of '.*' have the label 'b'; a classifier needs"):
        make("".join(f"{number},b\n" for number in range(20)))
    rows = "".join(f"{number},{number % 2}\n" for number in range(20))
    with pytest.raises(FileError, match="all training rows have more than 2 tokens"):
        make(rows.replace(",", " and more,"), longest=2)
    other = written("b.csv", "text,label\na,z\n")
    with pytest.raises(FileError, match="the held-out label 'z' is not in the training data"):
        make(rows, held_out=[other])

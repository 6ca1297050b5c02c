"""`pellucid embed`, `similar`, `cluster` and `classify`, run as a user runs them."""

import csv
import json
import os
import resource
import subprocess
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet
import pytest

from tests import forked
from tests.command_line import options_of

COMMANDS = ("embed", "similar", "cluster", "classify")
CATS = ["A cat sleeps on the mat", "The cat chases mice", "My cat purrs", "A grey cat meows"]
SOUPS = ["Boil the soup", "The soup needs salt", "A bowl of soup", "Stir the soup slowly"]


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*CATS, *SOUPS]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def examples(tmp_path):
    path = tmp_path / "examples.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = [(text, kind) for kind, texts in (("cat", CATS), ("soup", SOUPS)) for text in texts]
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_are_those_documented(run, command):
    status, out, _ = run(command, "--help")
    assert status == 0
    over = {"--over", "--workers", "--part"}
    common = {"--column", "--delimiter", "--encoding"}
    common |= {"--model", "--strict", "--output", "--overwrite", "--json", "--help"}
    assert (
        options_of(out) - common
        == {
            "embed": {"--file", "--prompt", "--truncate-dim", "--precision"} | over,
            "similar": {"--top", "--exact"},
            "cluster": {"--groups", "--seed", "--html", "--svg"},
            "classify": {"--examples", "--head", "--file", "--label", "--save", "--seed"}
            | {"--predict", "--separator", "--balanced"}
            | over,
        }[command]
    )


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_width(run, lines, examples, tmp_path, width):
    for arguments in (
        ("embed", *CATS, "long " * 50),
        ("similar", "soup", lines),
        ("cluster", lines),
        ("classify", "--examples", examples, "--file", lines),
    ):
        status, out, err = run(*arguments, width=width)
        assert (status, err) == (0, "")
        assert max(map(len, out.splitlines())) <= width
        assert "\x1b" not in out


def test_a_long_text_is_cut_and_nothing_beside_it(run):
    texts = ["long " * 31, "short " * 7]
    for width in (40, 80, 120):
        _, out, _ = run("classify", *texts, width=width)
        head, *rows = (line.rstrip() for line in out.splitlines())
        assert head.split() == ["label", "sure", "text"]
        assert {row.split()[0] for row in rows} <= {"negative", "positive"}
        assert len(rows[0]) == width
        assert rows[0].endswith("…")
        _, out, _ = run("embed", *texts, width=width)
        assert [row.split()[0] for row in out.split("\n\n")[1].splitlines()[-2:]] == ["1", "2"]


def test_a_label_is_whole_however_long(run, tmp_path):
    names = ["x" * 29, "y" * 31]
    path = tmp_path / "long.csv"
    rows = zip([*CATS, *SOUPS], [name for name in names for _ in CATS], strict=True)
    path.write_text("text,label\n" + "".join(f"{text},{name}\n" for text, name in rows))
    _, out, _ = run("classify", "--examples", path, "A cat " * 19, width=60)
    assert names[0] in out.rpartition("sure")[2]


def test_embeddings_shown(run):
    _, out, _ = run("embed", *CATS)
    assert "all-MiniLM-L6-v2: 4 texts, 384 dimensions" in out
    assert "Cosine similarity" in out
    assert "Cosine similarity" not in run("embed", CATS[0])[1]


def test_embeddings_written(run, tmp_path, lines):
    array, table, said = (tmp_path / f"out.{kind}" for kind in ("npy", "parquet", "json"))
    for path in (array, table, said):
        assert run("embed", "--file", lines, "-o", path) == (0, "", f"wrote {path}\n")
    found = np.load(array)
    assert (found.shape, found.dtype) == ((8, 384), np.float32)
    columns = pyarrow.parquet.read_table(table).to_pydict()
    assert columns["text"] == [*CATS, *SOUPS]
    assert columns["line"] == list(range(1, 9))
    np.testing.assert_array_equal(np.array(columns["embedding"], np.float32), found)
    status, out, _ = run("embed", "--file", table, "--json")
    assert (status, out) == (0, said.read_text(encoding="utf-8"))
    items = json.loads(out)["items"]
    np.testing.assert_allclose([item["embedding"] for item in items], found, atol=1e-6)


@pytest.fixture
def fast(monkeypatch):
    """A processor with AMX; where there is none, few and short texts are emulated."""
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: True)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
def test_embeddings_in_bfloat16_say_what_they_lost(run, lines, tmp_path, precision):
    exact = json.loads(run("embed", "--file", lines, "--json")[1])
    assert exact["precision"] == "float32"
    status, out, err = run("embed", "--file", lines, "--json", "--precision", precision)
    found = json.loads(out)
    assert (status, found["precision"], found["compared"]) == (0, "bfloat16", 8)
    vectors, others = (
        np.array([item["embedding"] for item in one["items"]]) for one in (found, exact)
    )
    cosine = (vectors * others).sum(-1).min()
    assert found["lowest_cosine"] == pytest.approx(cosine, abs=1e-6)
    assert 0.999 < cosine < 0.999999
    lost = (
        "pellucid: embedded in bfloat16: compared on 8 texts, the cosine with float32 is "
        f"{np.floor(found['lowest_cosine'] * 1e5) / 1e5:.5f} or more\n"
    )
    assert err == lost
    path = tmp_path / "out.parquet"
    status, _, err = run("embed", "--file", lines, "-o", path, "--precision", precision)
    assert (status, err) == (0, f"{lost}wrote {path}\n")
    columns = pyarrow.parquet.read_table(path).to_pydict()
    np.testing.assert_allclose(columns["embedding"], vectors, atol=1e-6)
    assert run("similar", "soup", path)[0] == 0  # it is the same encoder


def test_no_bfloat16_without_the_instructions(run, monkeypatch):
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    status, out, err = run("embed", CATS[0], "--precision", "bfloat16")
    assert (status, out) == (2, "")
    assert err == (
        "pellucid: this processor has no AMX, without which bfloat16 is slower than float32; "
        "precision 'auto' takes the faster one\n"
    )
    status, out, err = run("embed", CATS[0], "--precision", "auto", "--json")
    assert (status, json.loads(out)["precision"], err) == (0, "float32", "")
    status, _, err = run("embed", CATS[0], "--precision", "half")
    assert (status, err) == (
        2,
        "pellucid: --precision must be one of auto, float32, bfloat16, not 'half'\n",
    )


def test_standard_input(run):
    status, out, err = run("embed", "--json", stdin=b"one\n\ntwo\n")
    assert (status, err) == (0, "pellucid: left out 1 empty line of 'standard input': 2\n")
    assert [item["line"] for item in json.loads(out)["items"]] == [1, 3]
    _, out, _ = run("similar", "two", "-", "--column", "b", "--json", stdin=b"a,b\n1,one\n2,two\n")
    found = json.loads(out)["matches"]
    assert [match["text"] for match in found] == ["two", "one"]
    assert found[0] == {"rank": 1, "score": pytest.approx(1), "line": 3, "text": "two"}
    status, out, _ = run("cluster", "--json", stdin="\n".join([*CATS, *SOUPS]).encode())
    assert {tuple(group["words"][:1]) for group in json.loads(out)["groups"]} == {
        ("cat",), ("soup",),
    }  # fmt: skip


def test_what_is_too_long_is_cut_or_refused(run, refused, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("rain\n\n" + "long " * 300, encoding="utf-8")
    status, _, err = run("embed", "--file", path)
    assert status == 0
    assert err.splitlines() == [
        f"pellucid: left out 1 empty line of '{path}': 2",
        "pellucid: 1 text of 2 truncated to 256 tokens, the model's maximum: 46 tokens are lost; "
        f"the longest, line 3 of '{path}', has 302",
    ]
    assert refused("embed", "--file", path, "--strict") == f"'{path}' has 1 empty line: 2"
    path.write_text("rain\n" + "long " * 300, encoding="utf-8")
    assert refused("embed", "--file", path, "--strict") == (
        f"line 2 of '{path}' has 302 tokens, but the model reads at most 256"
    )


def test_similar_ranks(run, lines, tmp_path):
    _, out, err = run("similar", "a cooking recipe", lines, "--top", 4)
    assert err == ""
    assert "Nearest to “a cooking recipe”: 4 of 8 texts" in out
    assert "cat" not in out
    path = tmp_path / "out.csv"
    run("similar", "a cooking recipe", lines, "-o", path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["text"] for row in rows[:4]} == set(SOUPS)
    assert [row["rank"] for row in rows] == [str(n) for n in range(1, 9)]


def test_cluster_says_and_draws(run, lines, tmp_path):
    svg, html, table = (tmp_path / f"map.{kind}" for kind in ("svg", "html", "parquet"))
    status, out, err = run("cluster", lines, "--svg", svg, "--html", html)
    assert (status, err) == (0, f"wrote {svg}\nwrote {html}\n")
    assert "8 texts in 2 groups" in " ".join(out.split())
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert html.read_text(encoding="utf-8").count("<li>") == 8
    assert run("cluster", lines, "-k", 3, "-o", table)[1] == ""
    found = pyarrow.parquet.read_table(table).to_pydict()
    assert (found["text"], set(found["group"])) == ([*CATS, *SOUPS], {1, 2, 3})


def test_classify_learns_saves_and_reads(run, refused, examples, tmp_path):
    head = tmp_path / "head.safetensors"
    status, out, err = run("classify", "--examples", examples, "--save", head)
    assert (status, err) == (0, f"wrote {head}\n")
    told = " ".join(out.split())
    assert "8 examples of 2 labels" in told
    assert "Held-out accuracy: 100%, 95% confidence interval 68% to 100%" in told
    assert "better than chance" in told
    assert "1 cat 4 0" in told
    _, first, _ = run(
        "classify", "--examples", examples, "A kitten", "A bowl of hot broth", "--json"
    )
    found = json.loads(first)
    assert found["held_out"]["confusion"] == [[4, 0], [0, 4]]
    assert [item["label"] for item in found["items"]] == ["cat", "soup"]
    _, later, _ = run(
        "classify", "--head", head, "--json", stdin=b"A kitten\nA bowl of hot broth\n"
    )
    for one, other in zip(found["items"], json.loads(later)["items"], strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


def test_a_label_with_one_example(run, tmp_path):
    path = tmp_path / "examples.csv"
    path.write_text("text,label\na cat,cat\na dog,dog\nthe dog,dog\n", encoding="utf-8")
    status, out, _ = run("classify", "--examples", path, "a kitten")
    assert status == 0
    assert "No held-out figure" in out
    assert "of 'cat'." in " ".join(out.split())


def test_a_head_of_another_encoder(run, refused, examples, checkpoint, tmp_path):
    head = tmp_path / "head"
    run("classify", "--examples", examples, "--save", head)
    assert refused("classify", "--head", head, "--model", checkpoint("bert"), "rain") == (
        "the head was fitted on embeddings of all-MiniLM-L6-v2, "
        "which differ from those of tiny-bert"
    )


def test_many_labels_are_listed(run, tmp_path):
    path = tmp_path / "examples.csv"
    rows = [f"number {n} {m},label {n}" for n in range(11) for m in ("a", "b")]
    path.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    _, out, _ = run("classify", "--examples", path)
    assert "The most frequent mistakes" in out
    assert " taken for label " in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["embed", "a", "--file", "b"], "give either texts or --file, not both"),
        (["embed", " "], "the text is empty"),
        (["embed", "a", ""], "text 2 is empty"),
        (["embed", "--file", "nowhere"], "cannot read 'nowhere': No such file"),
        (["embed", "a", "-o", "out.txt"], "--output must end in .npy, .parquet or .json"),
        (["embed", "a", "--model", "/nowhere"], "model '/nowhere' is not a directory"),
        (["embed", "a", "-o", "/nowhere/a.npy"], "cannot write '/nowhere/a.npy'"),
        (["embed", "a", "--model", " "], "--model is empty; give a model's directory"),
        (["embed", "a", "--model", "{texts}"], "texts.txt' is a file; give the model's directory"),
        (["similar"], "Missing argument 'QUERY'"),
        (["similar", "{texts}"], "is a file; the query comes before it: pellucid similar"),
        (["similar", " ", "{texts}"], "the text is empty"),
        (["similar", "a", "{texts}", "--top", "0"], "--top must be 1 or more, not 0"),
        (["similar", "a", "{texts}", "--column", "b"], "has one text per line and no columns"),
        (["similar", "a", "{examples}", "--column", "txet"], "did you mean 'text'"),
        (["cluster", "{texts}", "-k", "0"], "--groups must be 1 or more, not 0"),
        (["cluster", "{texts}", "-k", "9"], "--groups must be from 1 to 8"),
        (["cluster", "{texts}", "--seed", "-1"], "--seed must be from 0"),
        (
            ["cluster", "{texts}", "--svg", "a", "--html", "./a"],
            "cannot both be 'a'",
        ),
        (["classify", "a", "--save", "b"], "--save goes with --examples"),
        (["classify", "--head", "a", "--examples", "b", "c"], "give either --examples, labelled"),
        (["classify", "--head", "a", "--save", "b"], "--save goes with --examples"),
        (["classify", "a", "--model", "nowhere"], "model 'nowhere' is not a local directory"),
        (["embed", "a", "--model", "minilmm"], "did you mean 'minilm'?"),
        (["classify", "--head", "{texts}", "a"], "is not a head"),
        (["classify", "--examples", "{texts}"], "has one text per line and no columns"),
        (["classify", "--examples", "nowhere"], "cannot read 'nowhere': No such file"),
        (["classify", "--examples", "{examples}", "--label", "kind"], "has no column 'kind'"),
        (["classify", "--examples", "{examples}", "-o", "a.csv"], "--output needs texts"),
        (["classify", "--examples", "{examples}", "--predict", "all"], "--predict must be label, "),
        (["classify", "--examples", "{examples}", "--predict", "number"], "'cat' is not a number"),
        (["classify", "a", "--balanced"], "--balanced go with --examples"),
    ],
)
def test_what_cannot_be_is_one_line(refused, lines, examples, arguments, complaint):
    given = [word.format(texts=lines, examples=examples) for word in arguments]
    assert complaint in refused(*given)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("embed a -o {nowhere}.npy", "No such file or directory"),
        ("similar a {texts} -o {folder}.csv", "it is a directory"),
        ("cluster {texts} --svg {good} --html {nowhere}", "No such file or directory"),
        ("cluster {texts} --html {good} -o {nowhere}.csv", "No such file or directory"),
        ("classify --examples {examples} --save {folder}.csv", "ends in .safetensors"),
        ("classify a --examples {examples} --save {good} -o {folder}.csv", "it is a directory"),
        ("watch a --save {nowhere}", "No such file or directory"),
        ("explain a --svg {good} --html {nowhere}", "No such file or directory"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(
    refused, lines, examples, tmp_path, monkeypatch, command, complaint
):
    """No model is opened, and nothing written beside."""
    folder, good, nowhere = (tmp_path / name for name in ("folder", "good", "no/where"))
    folder.with_suffix(".csv").mkdir()
    for work in ("commands.inputs.opened", "readers.forward_pass.look", "lessons.model.walk_model"):
        monkeypatch.setattr(f"pellucid.{work}", pytest.fail)
    places = {"folder": folder, "good": good, "nowhere": nowhere}
    given = command.format(texts=lines, examples=examples, **places)
    assert complaint in refused(*given.split())
    assert not good.exists()


def test_a_classification_that_fails_saves_no_head(refused, examples, tmp_path):
    head = tmp_path / "head"
    command = ("classify", "--examples", examples, "--save", head, "--strict")
    assert "has 302 tokens" in refused(*command, "long " * 300)
    assert not head.exists()


def test_control_characters_stay_out_of_json(run):
    """Those that JSON would leave as they are: a terminal may take them for commands."""
    _, out, _ = run("embed", "rain \x9b\x7f", "--json")
    assert json.loads(out)["items"][0]["text"] == "rain \x9b\x7f"
    assert "\x9b" not in out


def test_bytes_that_are_no_text(refused, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc\nd\xff")
    assert refused("embed", "--file", path).endswith(
        "byte 5, in line 2, is 0xff; if that is “dÿ”, the file is read with --encoding windows-1252"
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", [["embed", "a", "--json"], ["embed", "a"]])
def test_a_full_disk_behind_standard_output(command):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*forked.command(), *command],
            stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "pellucid: cannot write the output: No space left on device\n"


THERE = {
    "npy": b"\x93NUMPY there before",
    "parquet": b"PAR1 there before",
    "json": b'{"there": "before"}',
    "csv": b"there,before",
}
"""Files of each kind, as far as anybody looks."""


@pytest.mark.parametrize("kind", ["npy", "parquet", "json", "csv"])
def test_nothing_is_half_written(refused, lines, tmp_path, kind):
    path = tmp_path / "out" / f"a.{kind}"
    path.parent.mkdir()
    path.write_bytes(THERE[kind])
    lines.write_text("\n".join(one + " and more" * 23 for one in [*CATS, *SOUPS]))
    command = ("similar", "cat", lines) if kind == "csv" else ("embed", "--file", lines)
    # A file may not grow beyond this, as if the disk were full; what is captured here is shorter.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        complaint = refused(*command, "-o", path, "--overwrite")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert complaint.startswith(f"cannot write '{path}': ")
    assert complaint.endswith("File too large")
    assert path.read_bytes() == THERE[kind]
    assert list(path.parent.iterdir()) == [path]


def test_the_name_of_a_file_as_a_text(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rain.txt").write_text("rain")
    status, _, err = run("embed", "rain.txt")
    assert status == 0
    assert err == "pellucid: 'rain.txt' is read as a text; use --file 'rain.txt' to read the file\n"


def test_what_keeps_nothing_says_so_when_it_is_stopped(run, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pellucid.tasks.embedding.embed", stopped)
    status, out, err = run("embed", "A cat", "--json")
    assert (status, out) == (130, "")
    told = "stopped; nothing is kept: only --file FILE with -o FILE.parquet or .npy continues"
    assert told in err

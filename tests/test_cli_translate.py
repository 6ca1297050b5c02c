"""`pellucid translate`, run as a user runs it."""

import csv
import io
import json
import os
import pty
import re
import subprocess
from dataclasses import replace
from functools import partial

import pytest
import torch
from pyarrow import parquet
from rich.cells import cell_len

import pellucid
from pellucid.commands.printing.translation import show_aligned
from pellucid.models import Config, Encoder
from pellucid.tasks import alignment, translate
from pellucid.tasks.translated import Translation
from tests import forked, multilingual, translators, writers
from tests.command_line import options_of

TEXTS = translators.ENGLISH.splitlines()
SPANISH = translators.SPANISH.splitlines()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The name of a directory with a model."""
    return str(translators.marian(tmp_path_factory.mktemp("marian")))


@pytest.fixture
def run(run):
    """Run `pellucid translate`."""
    return partial(run, "translate")


def test_the_options_are_those_documented(run):
    status, out, _ = run("--help", width=100)
    assert status == 0
    assert options_of(out) == {
        "--file", "--column", "--delimiter", "--encoding", "--model", "--from", "--to",
        "--whole", "--protect",
        "--beams", "--length-penalty", "--max-tokens", "--align", "--strict",
        "--over", "--workers", "--part",
        "--output", "--overwrite", "--json", "--help",
    }  # fmt: skip


# Texts


def test_arguments(run, model):
    assert run(TEXTS[0], "--model", model) == (0, f"{SPANISH[0]}\n", "")
    status, out, err = run(*TEXTS, "--model", model)
    assert (status, out.splitlines(), err) == (0, SPANISH, "")


def test_standard_input_and_lines_that_are_empty(run, model):
    """Line n of what comes out is what line n became."""
    status, out, err = run("--model", model, stdin=f"{TEXTS[0]}\n\n{TEXTS[2]}\n  \n")
    assert (status, out) == (0, f"{SPANISH[0]}\n\n{SPANISH[2]}\n\n")
    assert err == "pellucid: left out 2 empty lines of 'standard input': 2 and 4\n"


def test_files(run, model, tmp_path):
    path = tmp_path / "en.txt"
    path.write_text("\n".join(TEXTS[:2]))
    assert run("--file", path, "--model", model)[1].splitlines() == SPANISH[:2]
    table = tmp_path / "en.csv"
    table.write_text(f'number,english\n1,{TEXTS[0]}\n2,"{TEXTS[1]}"\n')
    found = run("--file", table, "--column", "english", "--model", model)
    assert (found[0], found[1].splitlines()) == (0, SPANISH[:2])


def test_in_a_pipe(run):
    """Without any model, all the way through: there is one in the package."""
    status, out, err = run("the king")
    assert (status, err) == (0, "")
    assert "rey" in out
    assert out.count("\n") == 1


def test_a_bar_on_a_terminal_alone(model):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "NUMBA_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "80"}
    options = {"stdout": subprocess.PIPE, "stderr": theirs, "env": environment}
    command = [*forked.command(), "translate", TEXTS[0], "--model", model]
    with subprocess.Popen(command, **options) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
        assert process.stdout.read().decode() == f"{SPANISH[0]}\n"
    os.close(ours)
    assert process.returncode == 0
    assert b"translating 1 text" in shown


# Options


def test_options_reach_the_search(run, model):
    text = "The river carried the lamp."
    loaded = pellucid.load(model)
    found = run(text, "--model", model, "--json", "--beams", 2, "--max-tokens", 7)
    said = json.loads(found[1])
    [one] = translate(loaded, [text], beams=2, max_tokens=7)
    assert (said["beams"], said["max_tokens"], said["length_penalty"]) == (2, 7, 1.0)
    assert said["items"] == [
        {
            "line": 1,
            "source": text,
            "text": one.text,
            "score": pytest.approx(one.score, rel=1e-4),
            "sentences": [{"source": [0, len(text)], "text": [0, len(one.text)]}],
            "protected": [],
        }
    ]
    said = json.loads(run(text, "--model", model, "--json", "--length-penalty", 0)[1])
    [one] = translate(loaded, [text], length_penalty=0)
    assert said["items"][0]["score"] == pytest.approx(one.score, rel=1e-4)


def test_what_the_model_asks_for_counts_where_nothing_is_given(run, model, tmp_path):
    """And what is given counts before it."""
    loaded = pellucid.load(model)
    loaded.generation = replace(loaded.generation, num_beams=2, length_penalty=0.6)
    loaded.save(tmp_path)
    for options, expected in [((), (2, 0.6)), (("--beams", 3), (3, 0.6))]:
        said = json.loads(run(TEXTS[0], "--model", tmp_path, "--json", *options)[1])
        assert (said["beams"], said["length_penalty"]) == expected


def test_json(run, model):
    status, out, err = run(*TEXTS[:3], "--model", model, "--json")
    assert (status, err) == (0, "")
    said = json.loads(out)
    assert said["model"] == os.path.basename(model)
    assert [item["text"] for item in said["items"]] == SPANISH[:3]
    assert [item["source"] for item in said["items"]] == TEXTS[:3]
    assert all(-0.1 < item["score"] < 0 for item in said["items"])


def test_too_long(run, refused, model, tmp_path):
    path = tmp_path / "long.txt"
    sentence = TEXTS[1].removesuffix(".")
    path.write_text(f"{TEXTS[0]}\n{', '.join([sentence] * 9)}.\n{' '.join(TEXTS)}\n")
    status, out, err = run("--file", path, "--model", model)
    lines = out.splitlines()
    assert (status, lines[0], lines[2]) == (0, SPANISH[0], " ".join(SPANISH))
    assert lines[1].count("barco de papel") == 9
    said = "pellucid: 1 sentence of more than 61 tokens, the model's maximum, cut at commas or "
    assert err == said + "spaces and translated in parts\n"
    complaint = refused("--file", path, "--model", model, "--strict")
    assert complaint.startswith(f"line 2 of '{path}' has a sentence of more than 61 tokens")
    status, out, err = run("--file", path, "--model", model, "--whole")
    assert re.fullmatch(r"pellucid: 2 texts of 3 truncated to 61 tokens, the model.*\n", err)
    assert out.count("\n") == 3


def test_what_is_kept_as_it_is(run, refused):
    """By the packaged model, which spells everything, and copies no address."""
    text = "See https://example.org/a?b=1. He said to {name}, come. And he went."
    _, everything, _ = run(text, "--protect", "all", "--json")
    status, out, err = run(text, "--json")  # the model loses both
    said = json.loads(out)["items"][0]
    assert said["text"] == json.loads(everything)["items"][0]["text"]
    assert (status, err) == (0, "")
    assert said["protected"] == ["https://example.org/a?b=1", "{name}"]
    assert said["text"].count("https://example.org/a?b=1") == said["text"].count("{name}") == 1
    places = [one["source"] for one in said["sentences"]]
    assert [text[first:last] for first, last in places] == [
        *("See https://example.org/a?b=1.", "He said to {name}, come.", "And he went.")
    ]
    _, out, err = run(text, "--protect", "none")
    start = "pellucid: changed in translation: 'https://example.org/a?b=1'"
    assert err.startswith(start)
    assert err.endswith("--protect all keeps addresses, tags, placeholders\n")
    assert "--protect must be one of changed, unknown, all, none, not 'some'" in refused(
        text, "--protect", "some"
    )


def test_languages(run, refused, tmp_path):
    theirs = multilingual.tokenizer("MBart50Tokenizer", tmp_path)
    multilingual.model("MBart50Tokenizer", theirs, 2).save_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    model = ("--model", tmp_path, "--max-tokens", 5, "--json")
    status, out, err = run(TEXTS[0], "--from", "es", "--to", "fr", *model)
    assert (status, err) == (0, "")
    [one] = translate(pellucid.load(tmp_path), [TEXTS[0]], source="es", target="fr", max_tokens=5)
    assert json.loads(out)["items"][0]["text"] == one.text
    status, _, err = run(TEXTS[0], "--to", "fr", *model)
    said = "pellucid: the texts are read as en_XX; --from names another language\n"
    assert (status, err) == (0, said)
    complaint = refused(TEXTS[0], "--to", "tlh", *model)
    assert "--to must be a language of the model, not 'tlh'; it has af_ZA, ar_AR" in complaint
    assert "--to must be one of the languages of the model: af_ZA" in refused(TEXTS[0], *model)


def test_a_model_that_has_no_choice_of_languages(refused, tmp_path):
    translators.t5(tmp_path)
    complaint = refused(TEXTS[0], "--model", tmp_path, "--from", "en")
    assert complaint == "--from must be left out: the model has no choice of languages"


# Files


@pytest.mark.parametrize("kind", ["txt", "csv", "json", "parquet"])
def test_output(run, model, tmp_path, kind):
    path = tmp_path / f"es.{kind}"
    given = f"{TEXTS[0]}\n\n{TEXTS[2]}\n"
    status, out, err = run("--model", model, "-o", path, stdin=given)
    assert (status, out) == (0, "")
    assert err.splitlines()[1:] == [f"wrote {path}"]
    if kind == "txt":
        assert path.read_text() == f"{SPANISH[0]}\n\n{SPANISH[2]}\n"
        return
    rows = {
        "csv": lambda: list(csv.DictReader(io.StringIO(path.read_text()))),
        "json": lambda: json.loads(path.read_text())["items"],
        "parquet": lambda: parquet.read_table(path).to_pylist(),
    }[kind]()
    assert [int(row["line"]) for row in rows] == [1, 3]
    assert [row["text"] for row in rows] == [SPANISH[0], SPANISH[2]]
    assert [row["source"] for row in rows] == [TEXTS[0], TEXTS[2]]
    assert all(-0.1 < float(row["score"]) < 0 for row in rows)


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_output_of_an_alignment(run, model, tmp_path, kind):
    path = tmp_path / f"es.{kind}"
    assert run(TEXTS[0], "--model", model, "--align", "-o", path)[0] == 0
    said = parquet.read_table(path).to_pylist if kind == "parquet" else None
    [row] = said() if said else json.loads(path.read_text())["items"]
    check_row(row, model)


def check_row(row, model):
    loaded = pellucid.load(model)
    expected = alignment(loaded, translate(loaded, [TEXTS[0]])[0])
    assert row["source_words"] == expected.source == [*TEXTS[0][:-1].split(), "."]
    assert row["words"] == expected.target == [*SPANISH[0][:-1].split(), "."]
    weights = torch.tensor(row["weights"])
    torch.testing.assert_close(weights, expected.weights, rtol=1e-3, atol=1e-5)


# Alignment


def test_alignment_as_json(run, model):
    status, out, err = run(TEXTS[0], "--model", model, "--align", "--json")
    assert (status, err) == (0, "")
    [row] = json.loads(out)["items"]
    check_row(row, model)


@pytest.mark.parametrize("width", [24, 50, 80, 200])
def test_alignment_at_every_width(run, model, width):
    status, out, err = run(TEXTS[0], TEXTS[5], "--model", model, "--align", width=width)
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    assert max(map(cell_len, out.splitlines())) <= width
    assert all(line == line.rstrip() for line in out.splitlines())
    told = " ".join(out.split())
    assert SPANISH[0] in told
    assert SPANISH[5] in told
    assert "percentage of its attention" in told


def test_the_numbers_of_a_grid(run, model):
    _, out, _ = run(TEXTS[0], "--model", model, "--align", width=200)
    loaded = pellucid.load(model)
    expected = alignment(loaded, translate(loaded, [TEXTS[0]])[0])
    head, *rows = [line.split() for line in out.splitlines()[2 : 3 + len(expected.target)]]
    assert head == expected.source
    assert [row[0] for row in rows] == expected.target
    for row, weights in zip(rows, expected.weights.tolist(), strict=True):
        numbers = [0 if cell == "·" else int(cell) for cell in row[1:]]
        assert numbers == pytest.approx([100 * weight for weight in weights], abs=0.6)


def test_alignment_says_which_heads_it_is_of(run, model, tmp_path):
    loaded = pellucid.load(model)
    for heads, said in (
        (None, "received: the mean over layers and heads. Special"),
        (((0, 1),), "received: in layer 0, head 1, which the model names for alignment. Special"),
        (
            ((0, 1), (0, 0)),
            "received: the mean over the 2 heads that the model names for alignment. Special",
        ),
    ):
        loaded.generation = replace(loaded.generation, alignment_heads=heads)
        loaded.save(tmp_path, overwrite=True)
        assert said in run(TEXTS[0], "--model", str(tmp_path), "--align", width=400)[1]


def test_alignment_has_colours_where_the_terminal_has(run, model, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[" in run(TEXTS[0], "--model", model, "--align")[1]


def test_a_translation_without_words(run, model):
    found = run(TEXTS[0], "--model", model, "--align", "--max-tokens", 1)
    assert found[0] == 0
    assert "This translation has no words." in found[1]
    said = json.loads(run(TEXTS[0], "--model", model, "--align", "--max-tokens", 1, "--json")[1])
    assert said["items"][0]["weights"] == said["items"][0]["words"] == []


def test_what_a_terminal_may_take_for_a_command_is_not_printed(capsys):
    from rich.console import Console

    from pellucid.lens.alignment import Alignment

    one = Translation(source="a", text="b\x1b[2Jc", score=0.0, source_ids=[1], ids=[1])
    grid = Alignment(torch.tensor([[0.5, 0.001]]), ["\x1b[2J", "一二三四五六七八九"], ["\x9bk"])
    show_aligned([one], [grid], Console(highlight=False, width=80))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert "一二三四五六…" in out
    assert "·" in out


# What cannot be


def test_models(refused, model, tmp_path):
    assert "is not a directory" in refused(TEXTS[0], "--model", tmp_path / "none")
    decoder = tmp_path / "decoder"
    writers.writer().save(decoder)
    complaint = refused(TEXTS[0], "--model", decoder)
    assert complaint == f"model '{decoder}' is a decoder; translation needs an encoder-decoder"
    encoder = tmp_path / "encoder"
    Encoder(Config(kind="encoder", vocabulary=5, width=16, layers=1)).save(encoder)
    assert "is an encoder; translation needs" in refused(TEXTS[0], "--model", encoder)
    bare = tmp_path / "bare"
    loaded = pellucid.load(model)
    loaded.tokenizer = None
    loaded.save(bare)
    assert refused(TEXTS[0], "--model", bare) == f"model '{bare}' has no tokenizer"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--beams", "0"], "--beams must be from 1 to 512, not 0"),
        (["--beams", "many"], "Invalid value for '--beams': "),
        (["--max-tokens", "0"], "--max-tokens must be from 1 to 2,147,483,647, not 0"),
        (["--max-tokens", "-3"], "--max-tokens must be from 1 to"),
        (["--length-penalty", "nan"], "--length-penalty must be from -10 to 10, not nan"),
        (["--length-penalty", "99"], "--length-penalty must be from -10 to 10, not 99.0"),
        (["-o", "out.pdf"], "--output must end in .txt, .csv, .json or .parquet, not 'out.pdf'"),
        (
            ["-o", "out.txt", "--align"],
            "--align needs a file that ends in .json or .parquet, not 'out",
        ),
        (["-o", "no/such/out.txt"], "cannot write 'no/such/out.txt': No such file or directory"),
        (["--file", "a.txt"], "give either texts or --file, not both"),
    ],
)
def test_options(refused, model, options, complaint):
    assert refused(TEXTS[0], "--model", model, *options).startswith(complaint)


def test_texts(refused, model, tmp_path):
    assert refused("", "--model", model).startswith("the text is empty")
    assert refused("a", " ", "--model", model).startswith("text 2 is empty")
    assert "'standard input' is empty" in refused("--model", model)
    assert "is not UTF-8 text: byte 2, in line 1" in refused("--model", model, stdin=b"ab\xff\n")
    missing = tmp_path / "none.txt"
    complaint = refused("--model", model, "--file", missing)
    assert complaint == f"cannot read '{missing}': No such file or directory"
    lines = tmp_path / "a.txt"
    lines.write_text("a\n\nb\n")
    assert "has one text per line and no columns" in refused(
        "--model", model, "--file", lines, "--column", "english"
    )
    assert "has 1 empty line: 2" in refused("--model", model, "--file", lines, "--strict")
    table = tmp_path / "a.csv"
    table.write_text("number,english\n1,a\n")
    assert "has no column 'englsh'; did you mean 'english'" in refused(
        "--model", model, "--file", table, "--column", "englsh"
    )
    assert "name one with --column" in refused("--model", model, "--file", table)

"""The command line, run as a user runs it."""

import errno
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from pellucid import __version__, cli
from pellucid.lessons import examples
from tests import forked

COMMAND = [sys.executable, "-m", "pellucid"]


@pytest.fixture
def run(monkeypatch, capfd):
    """Run the command in this process; gives the status, what it printed and what it complained."""

    def command(*arguments: str, width: int = 80) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "argv", ["pellucid", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capfd.readouterr()

    return command


def test_help_loads_nothing_heavy():  # how fast it is, `make bench` says
    script = (
        "import sys; sys.argv = ['pellucid', '--help']\n"
        "from pellucid.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "explain" in done.stdout
    assert "scaling" in done.stdout


def test_version(run):
    assert run("--version") == (0, f"pellucid {__version__}\n", "")


@pytest.mark.parametrize("command", ["explain", "scaling"])
def test_the_options_are_those_documented(run, command):
    status, out, _ = run(command, "--help")
    options = {word.strip(".,;:") for word in out.split() if word.startswith("--") and word != "--"}
    assert status == 0
    assert options == {
        "explain": {
            "--example", "--model", "--layer", "--head", "--query", "--causal", "--weights",
            "--words", "--from", "--source", "--seed", "--width", "--size", "--heads", "--table",
            "--text", "--scale", "--temperature", "--steps", "--save", "--html", "--svg",
            "--overwrite", "--json", "--help",
        },
        "scaling": {
            "--dims", "--keys", "--samples", "--seed", "--distribution", "--train", "--size",
            "--steps", "--svg", "--overwrite", "--json", "--help",
        },
    }[command]  # fmt: skip


def test_explain_runs_a_real_model_in_a_pipe():
    done = subprocess.run(
        [*COMMAND, "explain", "Write a poem", "--steps"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    for part in ("Pellucid's decoder", "scores = Q · Kᵀ", "of its attention to itself", "context"):
        assert part in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_a_reader_that_leaves_early_is_no_error():
    with subprocess.Popen(
        [*forked.command(), "explain", "--example", "journey"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_a_terminal_of_few_characters_gets_question_marks():
    done = subprocess.run(
        [*forked.command(), "explain", "--example", "poem"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert b"36%" in done.stdout
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("width", [40, 60, 120])
def test_every_width(run, width):
    status, out, err = run("explain", "The king sat on the throne", "--query", "king", width=width)
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= width
    assert "'king' gives" in " ".join(out.split())


def test_json_is_for_scripts(run):
    status, out, err = run("explain", "I write a word", "--layer", "1", "--head", "3", "--json")
    assert (status, err) == (0, "")
    walk = json.loads(out)
    assert walk["tokens"] == ["<|end|>", "I", "write", "a", "word"]
    assert walk["facts"]["layer"] == 1
    weights = next(step for step in walk["steps"] if step["name"] == "softmax")["matrices"][0]
    assert [sum(row) for row in weights["values"]] == pytest.approx([1] * 5)
    status, out, _ = run("scaling", "--json", "--dims", "2,8", "--samples", "13", "--keys", "5")
    assert status == 0
    assert [row["d_k"] for row in json.loads(out)["rows"]] == [2, 8]


def test_pictures_are_written_where_asked(run, tmp_path):
    svg, html, chart = (tmp_path / name for name in ("poem.svg", "poem.html", "scaling.svg"))
    status, out, err = run("explain", "--example", "poem", "--svg", str(svg), "--html", str(html))
    assert status == 0
    assert "36%" in out
    assert err == f"wrote {html}\nwrote {svg}\n"
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    HTMLParser().feed(html.read_text(encoding="utf-8"))
    assert "36%" in html.read_text(encoding="utf-8")
    assert run("scaling", "--samples", "13", "--svg", str(chart))[0] == 0
    assert ElementTree.parse(chart).getroot().tag.endswith("svg")
    assert {path.name for path in tmp_path.iterdir()} == {"poem.svg", "poem.html", "scaling.svg"}


def test_examples_take_their_options(run):
    _, parameters, _ = run("explain", "--example", "journey", "--steps")
    _, linear, _ = run("explain", "--example", "journey", "--weights", "linear", "--causal")
    assert "0.3061 0.8210" in parameters
    assert "38%" in linear
    assert "–" in linear  # a hidden key has no weight
    lookup = run("explain", "--example", "lookup", "--query", "amber", "--steps")[1]
    assert lookup.count("595.0") >= 1


def test_the_picture_comes_first_and_the_steps_when_asked(run):
    _, short, _ = run("explain", "--example", "poem")
    _, whole, _ = run("explain", "--example", "poem", "--steps")
    assert "36%" in short
    assert "--steps shows all 9 steps" in short
    assert "scores = Q" not in short
    assert len(short.splitlines()) < 15
    assert "scores = Q" in whole


def test_a_lesson_is_saved_changed_and_read_again(run, tmp_path):
    path = tmp_path / "my.json"
    drawn = ["explain", "--words", "dog bites man", "--seed", "3", "--heads", "2", "--size", "5"]
    status, out, err = run(*drawn, "--save", str(path))
    assert (status, err) == (0, f"wrote {path}\n")
    status, again, err = run("explain", "--from", str(path))
    assert (status, err) == (0, "")
    assert f"Read from {path}." in "".join(again.splitlines())
    assert again.splitlines()[-8:] == out.splitlines()[-8:]
    lesson = json.loads(path.read_text(encoding="utf-8"))
    lesson["tokens"][1] = "eats"
    lesson["temperature"] = 0.01
    path.write_text(json.dumps(lesson), encoding="utf-8")
    status, changed, _ = run("explain", "--from", str(path), "--head", "1")
    assert status == 0
    assert "eats" in changed
    assert "100%" in changed
    assert run(*drawn, "--save", str(path))[0] == 2  # it is there already


def test_an_example_can_be_changed(run):
    usual = run("explain", "--example", "poem")[1]
    unscaled = run("explain", "--example", "poem", "--scale", "1")[1]
    cold = run("explain", "--example", "poem", "--temperature", "0.01")[1]
    assert len({usual, unscaled, cold}) == 3
    assert ">99%" in cold or "100%" in cold


def test_two_models_train_side_by_side(run):
    status, out, err = run("scaling", "--train", "--size", "5", "--steps", "13")
    assert (status, err) == (0, "")
    assert "undivided: loss" in out
    assert "Neither model learnt the task in 13 steps" in " ".join(out.split())
    parsed = json.loads(run("scaling", "--train", "--size", "5", "--steps", "13", "--json")[1])
    assert len(parsed["unscaled"]) == 13


def test_a_table_of_ones_own(run):
    status, out, _ = run(
        "explain", "--example", "lookup", "--table", "red=1,blue=2", "--query", "pink"
    )
    assert status == 0
    assert "'red'" in out
    assert "1.0" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain"], "give either a sentence"),
        (["explain", "Hi", "--example", "poem"], "give either a sentence"),
        (["explain", ""], "sentence is empty"),
        (["explain", "--example", "sonnet"], "no example 'sonnet'; there are: poem, journey"),
        (["explain", "--example", "poem", "--head", "1"], "--head goes with a sentence"),
        (["explain", "Hi", "--weights", "linear"], "--weights goes with --example"),
        (["explain", "Hi", "--seed", "0"], "--seed goes with --words, not with a sentence"),
        (["explain", "--example", "lookup", "--causal"], "--causal goes with a sentence"),
        (["explain", "--example", "poem", "--table", "a=1"], "--table goes with --example lookup"),
        (["explain", "--example", "lookup", "--table", "a=b"], "--table must be KEY=NUMBER"),
        (["explain", "--words", " "], "words are missing"),
        (["explain", "--words", "a", "--head", "1"], "head 1 is out of range"),
        (["explain", "--example", "poem", "--scale", "0"], "scale must be from 1e-6"),
        (["explain", "--from", "/nowhere/my.json"], "No such file"),
        (["explain", "Hi", "--model", "/nowhere"], "model '/nowhere' is not a directory"),
        (["explain", "Hi", "--layer", "6"], "layer 6 is out of range: Pellucid's decoder has 6"),
        (["explain", "--example", "poem", "--svg", "/nowhere/x.svg"], "cannot write '/nowhere/x"),
        (["scaling", "--dims", "1,two"], "--dims must be numbers separated by commas, not '1,two'"),
        (["explain", "Hi", "--model", "a" * 5000], "File name too long"),
        (["explain", "--example", "poem", "--html", "a" * 5000], "File name too long"),
        (["explain", "--example", "poem", "--svg", "a" * 5000], "File name too long"),
        (["explain", "--example", "poem", "--svg", "a", "--html", "./a"], "cannot both be 'a'"),
        (["explain", " \t\u200b\x07"], "sentence is empty"),
        (["explain", "Hi", "--query", ""], "--query is empty"),
        (["explain", "--example", "lookup", "--query", ""], "--query is empty"),
        (["explain", "Hi", "--query", "\x1b[31m"], "query '\ufffd[31m' is not among"),
        (["explain", "--example", "\x1b[31m"], "no example '\ufffd[31m'"),
        (["scaling", "--seed", str(2**64)], "--seed must be from -2**63 to 2**64 - 1, not 18446"),
        (["scaling", "--seed", str(-(2**63) - 1)], "--seed must be from -2**63"),
        (["scaling", "--steps", "3"], "--steps goes with --train"),
        (["scaling", "--train", "--svg", "a.svg"], "--svg goes without --train"),
        (["scaling", "--keys", "1"], "--keys must be at least 2, not 1"),
    ],
)
def test_an_expected_failure_is_one_line(run, arguments, message):
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert err.startswith("pellucid: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "--bogus"], "No such option: --bogus"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["scaling", "--keys", "few"], "'few'"),
        (["scaling", "--keys=few"], "'few'"),
        (["explain", "--example", "journey", "--weights", "heavy"], "'heavy'"),
        (["explain", "Hi", "--layer"], "requires an argument; see pellucid explain --help"),
        (
            ["ablate", "Hi", "--by", "x"],
            "'--by': 'x' is not one of 'zero', 'mean'; see",
        ),
        (["scaling", "more"], "more"),
        (
            ["explain", "Write", "a", "poem"],
            'explain takes one sentence; put it in quotes: "Write a poem"',
        ),
    ],
)
def test_wrong_usage_is_one_line(run, arguments, message):
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert err.startswith("pellucid: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert message in err


def test_no_arguments_show_the_help(run):
    assert run() == run("--help")


@pytest.mark.parametrize("seed", [-(2**63), 2**64 - 1])
def test_the_outermost_seeds(run, seed):
    assert run("scaling", "--seed", str(seed), "--samples", "13")[0] == 0


def test_lookup_ignores_case(run):
    given = [run("explain", "--example", "lookup", "--query", word) for word in ("amber", "AMBER")]
    assert given[0] == given[1]
    assert given[0][0] == 0


def test_control_characters_do_not_reach_the_terminal(run, tmp_path):
    path = tmp_path / "a\x1b.svg"
    status, out, err = run("explain", "Write \x1b[31m\x9b red", "--svg", str(path))
    assert status == 0
    for letter in ("\x1b", "\x9b"):
        assert letter not in out
        assert letter not in err
        assert letter not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["explain", "--example", "poem"],
        ["explain", "--example", "poem", "--json"],
        ["scaling", "--samples", "13"],
    ],
)
@pytest.mark.parametrize(
    ("to", "message"),
    [(">/dev/full", "No space left on device"), (">&-", "standard output is closed")],
)
def test_output_that_cannot_be_written(arguments, to, message):
    if to == ">/dev/full" and not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    command = ["sh", "-c", f'"$@" {to}', "sh", *forked.command(), *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == f"pellucid: cannot write the output: {message}\n"


def test_an_error_of_the_system_is_blamed_on_the_output_only_if_it_is_of_the_output(
    run, monkeypatch
):
    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(examples, "walk_example", fail)
    assert run("explain", "--example", "poem") == (2, "", "pellucid: Input/output error\n")

"""`pellucid ablate`, run as a user runs it."""

import csv
import json
from functools import cache

import pytest

from pellucid.ablation import trial
from tests import writers
from tests.command_line import options_of

TEXT = "Once upon a time there was a little girl"


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A directory with a tiny decoder."""
    path = tmp_path_factory.mktemp("models") / "writer"
    writers.writer().save(path)
    return path


def test_the_options_are_those_documented(run):
    status, out, _ = run("ablate", "--help")
    assert status == 0
    assert options_of(out) == {
        "--file", "--encoding", "--target", "--model", "--measure", "--by", "--heads", "--layers",
        "--max-tokens", "--top", "--controls", "--seed", "--resume", "--html", "--svg", "--output",
        "--overwrite", "--json", "--help",
    }  # fmt: skip


@pytest.mark.parametrize("width", [40, 80, 130])
def test_a_text_at_every_width(run, writer, width):
    status, out, err = run(
        "ablate", TEXT, "--model", writer, "--top", 2, "--controls", 3, width=width
    )
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= width
    told = " ".join(out.split())
    for part in ("writer reads ", "each head knocked out in turn", "What the heads do, and how"):
        assert part in told
    assert "The 2 heads that matter most" in told
    assert "of 3" in told
    assert "3 are too few to tell" in told
    assert ("KL at the end" in told) == (width == 130)
    assert "\x1b" not in out


def test_all_outputs_say_the_same(run, writer, tmp_path):
    page, picture, table = (tmp_path / name for name in ("a.html", "a.svg", "a.csv"))
    options = ["--layers", "-1", "--controls", "5", "--top", "1", "--by", "mean", "--json"]
    status, out, err = run(
        "ablate", TEXT, "--model", writer, *options, "--html", page, "--svg", picture, "-o", table
    )
    assert status == 0
    assert err.count("wrote ") == 3
    found = json.loads(out)
    assert (found["model"], found["measure"], found["by"]) == ("writer", "kl", "mean")
    assert found["loss"] > 0
    heads = found["heads"]
    assert [(row["layer"], row["head"]) for row in heads] == [(1, 0), (1, 1), (1, 2)]
    best = max(heads, key=lambda row: row["effect"])
    assert [len(row["controls"]) for row in heads] == [5 * (row is best) for row in heads]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["effect"]) for row in rows] == [row["effect"] for row in heads]
    for drawn in (page, picture):
        text = drawn.read_text()
        assert "writer: which heads matter" in text
        assert f"{best['effect']:.3g}" in text
        assert text.count("<g><title>head 1.") == 3
    assert "<table>" in page.read_text()


def test_heads_together(run, writer):
    options = ["--model", writer, "--heads", "0.1, 1.2", "--controls", 5]
    status, out, err = run("ablate", TEXT, *options)
    assert (status, err) == (0, "")
    told = " ".join(out.split())
    assert "tokens without heads 0.1 and 1.2" in told
    assert "5 random sets of 2 other heads: " in told
    assert "5 sets are too few to tell more." in told
    status, out, _ = run("ablate", TEXT, *options, "--json")
    found = json.loads(out)
    assert found["heads"] == ["0.1", "1.2"]
    assert f"KL {found['effect']:.3g} " in told
    assert len(found["controls"]) == 5
    assert f"{found['beaten']} do less" in told
    told = run("ablate", TEXT, *options[:3], "1.0", "--layers", 1, "--controls", 30)[1]
    assert "2 random sets of 1 other head" in told
    told = run("ablate", TEXT, *options[:3], "0.1, 1.2", "--controls", 30)[1]
    assert "6 random sets of 2 other heads" in told
    status, out, _ = run("ablate", TEXT, *options[:3], "1.0", "--controls", 0)
    assert "without head 1.0" in out
    assert "random" not in out


def test_each_kind_of_model_has_its_measure(run):
    @cache
    def asked(model, *options):
        status, out, err = run(
            "ablate", TEXT, "--model", model, "--layers", "-1", "--controls", "0", "--json",
            *options,
        )  # fmt: skip
        assert (status, err) == (0, "")
        return json.loads(out)

    assert asked("sentiment")["measure"] == "logit"
    assert asked("sentiment")["about"].startswith("fall of the log-odds")
    assert asked("sentiment")["label"] in ("positive", "negative")
    assert asked("sentiment", "--measure", "cosine")["measure"] == "cosine"
    told = asked("translator", "--target", "Una niña")
    assert told["measure"] == "logprob"
    assert told["target"].startswith("Una niña")
    assert told["target"].endswith("<|end|>")


def test_a_stopped_run_goes_on(run, writer, tmp_path, monkeypatch):
    path = tmp_path / "figures.jsonl"
    command = ["ablate", TEXT, "--model", writer, "--controls", "2", "--resume", path, "--json"]
    real, left = trial.Trial.figures, iter(range(1))

    def stopped(self, items):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(self, items)

    with monkeypatch.context() as patched:
        patched.setattr(trial.Trial, "figures", stopped)
        status, out, err = run(*command)
    assert (status, out) == (130, "")
    assert "stopped; the same command goes on" in err
    status, out, err = run(*command)
    assert status == 0
    assert "3 runs were done before" in err
    assert len(json.loads(out)["heads"]) == 6


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--layers", "7"], "there is no layer 7; the last layer is 1"),
        (["--layers", "0,"], "--layers must be numbers or names separated by commas, not '0,'"),
        (["--heads", "5.0"], "there is no head '5.0'; the heads are 0.0 to 1.2"),
        (["--heads", ","], '--heads must be like "2.2" or "previous token"'),
        (["--heads", "0.0", "--resume", "x"], "--resume goes without --heads"),
        (["--top", "-1"], "--top must be 0 or more, not -1"),
        (["--controls", "-1"], "--controls must be 0 or more, not -1"),
        (["--measure", "logit"], "writer is measured by kl or loss, not by logit"),
        (["--target", "x"], "--target needs an encoder-decoder, and writer is not one"),
        (["--max-tokens", "1"], "the text has 1 token; heads are measured on 2 or more"),
    ],
)
def test_what_does_not_fit(refused, writer, options, told):
    assert refused("ablate", TEXT, "--model", writer, *options).startswith(told)


def test_a_file_that_cannot_be_gone_on_with_is_told_before_the_model(refused, tmp_path):
    there = tmp_path / "mine.txt"
    there.write_text("mine\n")
    for path, told in ((there, "holds no figures of heads"), (there / "x", "cannot write '")):
        assert told in refused("ablate", TEXT, "--model", "nowhere", "--resume", path)
    assert there.read_text() == "mine\n"


@pytest.mark.parametrize("name", ["by", "measure"])
def test_a_choice_that_is_none(refused, name):
    assert f"Invalid value for '--{name}'" in refused("ablate", TEXT, f"--{name}", "noise")


def test_an_encoder_predicts_no_tokens(refused):
    told = refused("ablate", TEXT, "--model", "sentiment", "--measure", "loss")
    assert told == "Pellucid's sentiment is measured by logit or kl or cosine, not by loss"

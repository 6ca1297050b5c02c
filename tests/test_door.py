"""One door: by whatever name a model goes, each command opens it or says in a line why not."""

import csv

import pytest
import torch
import typer

import pellucid
from pellucid import cli, pretrained
from pellucid.models import Config
from pellucid.models.architectures import KINDS
from tests import writers
from tests.training.runs import SMALL, TEXTS

TEXT = "the red house by the river"
MODELS = {
    "decoder": "decoder",
    "translator": "encoder-decoder",
    "sentiment": "encoder",
    "minilm": "encoder",
    "trained decoder": "decoder",
    "trained classifier": "encoder",
    "saved decoder": "decoder",
    "saved encoder": "encoder",
    "saved encoder-decoder": "encoder-decoder",
}
"""What there is to open, and of which kind it is; a word before the kind says who has made it."""
ALL = set(MODELS.values())
LABELLING = ["sentiment", "trained classifier"]
OPENS = {
    "explain": (["explain", TEXT], ALL),
    "film": (["film", TEXT, "--gif", "film.gif"], ALL),
    "film, translating": (["film", TEXT, "--translate", "--gif", "film.gif"], {"encoder-decoder"}),
    "film, going on": (["film", TEXT, "--generate", "--gif", "film.gif"], {"decoder"}),
    "watch": (["watch", TEXT], ALL),
    "trace": (["trace", TEXT], ALL),
    "why": (["why", TEXT, "--head", "0.0"], {"encoder", "decoder"}),
    "why, letters": (["why", TEXT, "--head", "x0.0"], {"encoder-decoder"}),
    "ablate": (["ablate", TEXT, "--controls", "3", "--top", "1"], ALL),
    "view": (["view", TEXT, "--no-browser"], ALL),
    "view, other": (["view", TEXT, "--no-browser", "--against", TEXT], ALL),
    "view, writing": (
        ["view", TEXT, "--no-browser", "--new-tokens", "3"],
        {"decoder", "encoder-decoder"},
    ),
    "export": (["export", TEXT, "--overwrite", "-o", "page.html"], ALL),
    "embed": (["embed", TEXT], {"encoder"}),
    "similar": (["similar", TEXT, "few.txt"], {"encoder"}),
    "cluster": (["cluster", "few.txt"], {"encoder"}),
    "classify": (["classify", TEXT], {"encoder"}),
    "classify, by examples": (["classify", TEXT, "--examples", "few.csv"], {"encoder"}),
    "generate": (["generate", TEXT, "--max-tokens", "3"], {"decoder"}),
    "chat": (["chat"], set()),  # none of them has a chat template
    "heads, probing": (["heads", "--probe", "--no-check", "--texts", "1"], {"decoder"}),
    "heads": (["heads", "--over", "corpus", "-o", "heads of {}"], ALL),
    "translate": (["translate", TEXT, "--max-tokens", "3"], {"encoder-decoder"}),
}
"""A command's arguments and the kinds that it opens."""
TRAINED = {
    "decoder": ["decoder", "texts.txt"],
    "classifier": ["classifier", "labelled.csv"],
    "translator": ["translator", "pairs.tsv", "--source", "1", "--target", "2"],
}


def save(kind, directory):
    """A model of random weights that has no family's shape."""
    torch.manual_seed(5)
    model = KINDS[kind](
        Config(
            kind=kind,
            vocabulary=writers.VOCABULARY,
            width=21,
            layers=1,
            heads=3,
            hidden=37,
            position="none",
            positions=61,
            start=writers.STOP,
            stop=(writers.STOP,),
        )
    )
    model.tokenizer = writers.tokenizer()
    model.save(directory)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A directory with texts; models come as they are asked for."""
    path = tmp_path_factory.mktemp("door")
    few = TEXTS[::7]
    (path / "texts.txt").write_text("\n".join(TEXTS))
    (path / "few.txt").write_text("\n".join(few))
    (path / "corpus").mkdir()
    (path / "corpus" / "texts.txt").write_text("\n".join(TEXTS[:2]))
    for name, texts in (("labelled.csv", TEXTS), ("few.csv", few)):
        with (path / name).open("w", newline="") as file:
            rows = [(one, "warm" if "red" in one else "cold") for one in texts]
            csv.writer(file).writerows([("text", "label"), *rows])
    (path / "pairs.tsv").write_text("\n".join(f"{one}\t{one.upper()}" for one in TEXTS))
    return path


@pytest.fixture
def named(here, run, monkeypatch):
    """A function that gives the name by which --model knows a model."""
    monkeypatch.chdir(here)

    def name(model):
        made, _, kind = model.partition(" ")
        if not kind:
            return model
        directory = model.replace(" ", "-")
        if not (here / directory).exists():
            if made == "saved":
                save(kind, here / directory)
            else:
                status, _, err = run("train", *TRAINED[kind], "-o", directory, *SMALL)
                assert status == 0, err
        return directory

    return name


def commands():
    """All that read a model, as a command line names them."""
    whole = typer.main.get_command(cli.app)
    parts = [*whole.commands.items(), *whole.commands["train"].commands.items()]
    return {
        name
        for name, command in parts
        if {"--model", "--from"} & {option for one in command.params for option in one.opts}
    }


def test_every_command_that_reads_a_model_is_tried():
    tried = {name.partition(",")[0] for name in OPENS}
    assert commands() == tried | {"decoder", "classifier", "translator", "encoder"}


@pytest.mark.parametrize("model", MODELS)
def test_load_opens_what_commands_do(model, named):
    assert pellucid.load(named(model)).kind == MODELS[model]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("command", OPENS)
def test_each_command_opens_it_or_says_why_not(command, model, named, run, refused, monkeypatch):
    shown = []
    monkeypatch.setattr("pellucid.viewer.serve.serve", lambda volumes, *_: shown.append(volumes))
    if command.startswith("film"):
        pytest.importorskip("skia", exc_type=ImportError)
        monkeypatch.setattr("pellucid.film.render.save", lambda film, *_, **__: [])
    arguments, kinds = OPENS[command]
    arguments = [*(one.format(model) for one in arguments), "--model", named(model)]
    labels = command == "classify" or (command == "trace" and MODELS[model] == "encoder")
    if MODELS[model] not in kinds or (labels and model not in LABELLING):
        told = refused(*arguments)
        assert named(model) in told or "pellucid translate" in told or "Decoder" in told
    else:
        status, out, err = run(*arguments)
        assert (status, "Traceback" in err) == (0, False), err
        if command.startswith("view"):
            assert [len(volumes) for volumes in shown] == [1 + (command == "view, other")]
            assert all(one.seen.names for volumes in shown for one in volumes)
        elif not command.startswith(("export", "film")):
            assert out


@pytest.mark.parametrize(
    ("what", "model", "is_base"),
    [
        ("decoder", "minilm", False),
        ("translator", "decoder", False),
        ("classifier", "sentiment", True),
        ("classifier", "translator", False),
    ],
)
def test_training_goes_on_from_a_short_name(what, model, is_base, named, tmp_path, run, refused):
    named(model)  # goes where the files are
    options = ["-o", tmp_path / "model", "--from", model, "--steps", "1"]
    if is_base:
        status, _, err = run("train", *TRAINED[what], *options)
        assert status == 0, err
    else:
        assert f"'{model}' is of kind " in refused("train", *TRAINED[what], *options)


def test_a_directory_goes_before_a_short_name(tmp_path, monkeypatch, run):
    save("encoder", tmp_path / "decoder")
    monkeypatch.chdir(tmp_path)
    assert pellucid.load("decoder").kind == "encoder"
    assert pellucid.load(pretrained.DECODER).kind == "decoder"
    status, out, _ = run("watch", TEXT, "--model", "decoder")
    assert status == 0
    assert out.startswith("decoder reads ")
    assert run("watch", TEXT)[1].startswith("Pellucid's decoder reads ")

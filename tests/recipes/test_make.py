"""From texts to the files of the package, at a tiny size."""

import json
import re
import shutil

import pytest
import torch
from safetensors import safe_open

import pellucid
from pellucid.errors import FileError
from pellucid.training.run_config import Run, options_of
from recipes import make as recipe
from recipes import reviews, verses
from tests.recipes.texts import reviews_wheel, verses_tsv

TINY = ("width=16", "layers=1", "heads=1", "hidden=16", "vocabulary=300", "batch_tokens=256")


def made(name, tmp_path):
    texts = reviews_wheel if name == "sentiment" else verses_tsv
    data = texts(tmp_path / ("r.whl" if name == "sentiment" else "v.tsv"))
    return recipe.make(name, data, steps=2, options=TINY, work=tmp_path / "work")


@pytest.mark.parametrize(
    ("name", "measure"),
    [("decoder", "bits_per_byte"), ("translator", "bleu"), ("sentiment", "accuracy")],
)
def test_a_recipe_gives_a_model_and_its_card(name, measure, tmp_path, monkeypatch):
    output = made(name, tmp_path)
    with safe_open(output / "model.safetensors", framework="pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118
    model = pellucid.load(output)
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    assert model.tokenizer is not None
    assert (output / "head.safetensors").exists() == (name == "sentiment")
    assert model.generation.repetition_penalty == recipe.RECIPES[name].repetition_penalty

    results = json.loads((output / "results.json").read_text())
    trained = json.loads((tmp_path / "work" / name / "results.json").read_text())
    assert results[measure] == pytest.approx(trained[measure], rel=0.01, abs=1)  # it is float16
    assert ("sentences" in results) == (name == "sentiment")

    card = (output / "README.md").read_text()
    facts = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", card, re.MULTILINE))
    assert facts["made by"] == f"`python -m recipes.make {name}`"
    assert facts["steps"].startswith("2, ")
    numbers = sum(one.numel() for one in model.parameters())
    assert facts["weights"].startswith(f"{numbers:,} in float16")
    assert {"learnt from", "held out", "shape", "time", "versions"} <= facts.keys()
    assert facts[measure.replace("_", " ")] == f"{results[measure]:.4g}"
    assert "## Limits\n\n- " in card
    assert "## Licence of the data" in card
    assert str(tmp_path) not in card

    # Once more, with nothing to do but to pack; and what is done stays as it is.
    monkeypatch.setattr(recipe, "_put", lambda *_: pytest.fail("the texts are there"))
    shutil.rmtree(output)
    again = recipe.make(name, steps=2, options=TINY, work=tmp_path / "work")
    assert json.loads((again / "results.json").read_text()) == results
    with pytest.raises(FileError, match="has a run with other options"):
        recipe.make(name, steps=3, options=TINY, work=tmp_path / "work")


def test_a_run_that_was_stopped_goes_on(tmp_path, capsys):
    output = made("decoder", tmp_path)
    before = (output / "model.safetensors").read_bytes()
    (tmp_path / "work" / "decoder" / "results.json").unlink()
    capsys.readouterr()
    made("decoder", tmp_path)
    assert "--resume" in capsys.readouterr().out
    assert (output / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", recipe.RECIPES)
def test_the_options_of_a_recipe_are_known(name, tmp_path):
    one = recipe.RECIPES[name]
    options = options_of(recipe.ROOT / "recipes" / f"{name}.toml")
    base = tmp_path if one.base else None
    Run(what=one.what, files=(tmp_path,), base=base, options=options)  # which refuses others
    assert options["steps"] >= 1000
    said = recipe.command(name, tmp_path, tmp_path / "run")
    assert {*one.files, one.held_out} <= {*one.needs}
    assert ("--from" in said) == (name == "minilm")


def test_only_a_whole_run_goes_into_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "BUILD", tmp_path / "build")
    monkeypatch.setattr(recipe, "PRETRAINED", tmp_path / "package")
    data = verses_tsv(tmp_path / "v.tsv")
    output = recipe.make("decoder", data, steps=1, options=TINY)
    assert output == tmp_path / "build" / "trial" / "models" / "decoder"
    assert not (tmp_path / "package").exists()


def test_what_is_held_out_or_left_out_has_a_name_in_the_cards():
    from recipes import cards

    assert set(cards.BOOKS) == {*verses.HELD_OUT, *verses.LEFT_OUT}
    assert set(cards.ABOUT) == set(recipe.RECIPES)
    assert f"{reviews.HELD_OUT:,}" in cards.ABOUT["sentiment"].held_out

"""The models in the package are what their cards say, measured again where the texts are.

PELLUCID_VERSES and PELLUCID_REVIEWS name the files, if the texts are not installed.
"""

import json
import os
import re
from pathlib import Path

import pytest

from pellucid.errors import MissingExtraError
from recipes import cards
from recipes import make as recipe

SHIPPED = [name for name, one in recipe.RECIPES.items() if one.is_shipped]
MOST = 45_000_000
"""Bytes of all of them."""


def directory_of(name):
    found = recipe.PRETRAINED / name
    if not found.is_dir():
        pytest.skip(f"{name} is not in the package yet")
    return found


def test_they_are_small():
    files = [one for one in recipe.PRETRAINED.rglob("*") if one.is_file()]
    assert sum(one.stat().st_size for one in files) <= MOST


@pytest.mark.parametrize("name", SHIPPED)
def test_a_card_is_as_the_recipe_writes_it(name):
    directory = directory_of(name)
    results = json.loads((directory / "results.json").read_text(encoding="utf-8"))
    card = (directory / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S.*?) \| (.*) \|$", card.partition("## Quality")[0], re.MULTILINE)
    facts = {key: value for key, value in rows if key != "---"}
    assert card == cards.written(name, facts, results)
    assert facts["learnt from"].startswith(f"{cards.ABOUT[name].data}: ")
    assert facts["held out"].startswith(f"{cards.ABOUT[name].held_out}: ")


def test_a_table_of_a_card_has_two_columns():
    rows = cards.measures({"bleu": 23.0, "signatures": ["nrefs:1|case:mixed", "nc:6|nw:0"]})
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3, 3]
    assert rows[1] == r"| signatures | nrefs:1\|case:mixed, nc:6\|nw:0 |"


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_what_was_measured_is_measured_again(name, tmp_path):
    directory, one = directory_of(name), recipe.RECIPES[name]
    variable = "PELLUCID_REVIEWS" if one.what == "classifier" else "PELLUCID_VERSES"
    named = os.environ.get(variable)
    try:
        one.data(None if named is None else Path(named), tmp_path)
    except MissingExtraError as error:
        pytest.skip(str(error))
    files = {"": tmp_path / one.held_out}
    files |= {key: tmp_path / file for key, file in one.also.items()}
    found = recipe.measured(one.what, directory, files)
    said = json.loads((directory / "results.json").read_text(encoding="utf-8"))
    assert numbers(found) == pytest.approx(numbers(said), rel=0.01)


def numbers(results):
    return {key: value for key, value in results.items() if isinstance(value, float)}

"""The stations: every question has one right answer, and what is said of numbers is true."""

import json
import re

import pytest
import torch

from pellucid.errors import ArgumentError, UnknownNameError
from pellucid.lessons import stations
from pellucid.lessons.lesson import from_json
from pellucid.lessons.next_token import LISTED, walk_next_token
from pellucid.lessons.notebook import to_notebook
from pellucid.lessons.slides import to_slides
from pellucid.lessons.stations import STATIONS, Station, station
from pellucid.lessons.steps import walk_lesson
from pellucid.lessons.walk import Walk


@pytest.fixture(scope="module")
def every() -> dict[str, Station]:
    return {name: station(name) for name in STATIONS}


def shown(walk: Walk, name: str) -> torch.Tensor:
    (values,) = [one.values for step in walk.steps for one in step.matrices if one.name == name]
    return torch.tensor(values, dtype=torch.float64)


def right(stop: Station) -> str:
    return stop.predict.choices[stop.predict.right].text


def test_each_station_is_whole(every):
    assert len(every) == 10
    for name, stop in every.items():
        assert (stop.name, stop.title) == (name, STATIONS[name])
        assert stop.step in [step.name for step in stop.walk.steps]
        for question in (stop.predict, stop.check):
            assert sum(choice.is_right for choice in question.choices) == 1
            assert all(choice.why for choice in question.choices)
            assert len({choice.text for choice in question.choices}) == len(question.choices)
        assert stop.own.startswith("pellucid ")
        assert (stop.lesson is None) == bool(stop.call)
        assert (stop.change.lesson is None) == bool(stop.change.call)
        assert stop.change.walk != stop.walk


def test_the_right_answer_is_not_always_at_one_place(every):
    for question in ("predict", "check"):
        assert len({getattr(stop, question).right for stop in every.values()}) == 3


def test_a_lesson_is_what_its_walk_was_computed_from(every):
    for stop in every.values():
        for part in (stop, stop.change):
            if part.lesson is not None and part.walk.heat[1].name == "weights" != stop.name:
                if stop.name == "lookup" and part is stop:
                    continue  # whose walk goes through several sharpnesses
                assert walk_lesson(part.lesson) == part.walk


def test_the_answers_are_those_of_the_numbers(every):
    assert right(every["lookup"]).startswith("595 nm")
    scores = shown(every["scores"].walk, "scores")[0]
    best = every["scores"].walk.tokens[int(scores.argmax())]
    assert f"'{best}'" in right(every["scores"])
    assert right(every["softmax"]) == "40%"
    assert shown(every["mask"].walk, "weights")[0, 0] == 1
    assert shown(every["heads"].walk, "concat").shape[1] == 6
    probability = shown(every["generation"].walk, "probability")[0]
    assert right(every["generation"]) == f"'{every['generation'].walk.tokens[0]}'"
    assert probability.argmax() == 0


def test_the_changes_do_what_they_say(every):
    projections = every["projections"]
    torch.testing.assert_close(
        shown(projections.change.walk, "Q"), projections.lesson.matrix("embeddings")
    )
    scores = every["scores"]
    torch.testing.assert_close(
        shown(scores.change.walk, "scores"), 2 * shown(scores.walk, "scores")
    )
    heads = every["heads"]
    torch.testing.assert_close(shown(heads.change.walk, "output"), shown(heads.walk, "concat"))
    before, after = re.findall(r"(\d+)%", every["scale"].change.text)
    assert int(before) < int(after)
    assert (shown(every["mask"].change.walk, "weights") > 0).all()
    positions = every["positions"]
    turned = positions.lesson.change(
        tokens=positions.lesson.tokens[::-1], embeddings=positions.lesson.embeddings[::-1]
    )
    torch.testing.assert_close(
        shown(walk_lesson(turned), "context").flip(0), shown(positions.walk, "context")
    )


def test_a_station_goes_by_number_too(every):
    assert station("3").name == "scores"
    for name in ("0", "11", "zebra"):
        with pytest.raises(
            UnknownNameError, match=f"no station '{name}'; there are: lookup, .* 10"
        ):
            station(name)
    with pytest.raises(UnknownNameError, match="no station 'sofmax'; did you mean softmax"):
        station("Sofmax")


def test_json_has_the_lesson(every):
    parsed = json.loads(stations.to_json(every["mask"]))
    assert parsed["check"]["choices"]
    assert len(parsed["lesson"]["tokens"]) == 6


def test_slides_stand_alone_and_hide_the_answers(every):
    for stop in every.values():
        html = to_slides(stop)
        assert html.count('<section class="slide">') == 6
        assert html.count("<details>") == 2
        assert "<script" not in html
        changed = html.split('<section class="slide">')[4]
        heat, step = stop.change.walk.heat[0], stop.change.step
        assert ("<svg" in changed) == (heat.name == step)
        assert changed.count("<table>") == (
            0
            if heat.name == step
            else sum(len(one.matrices) for one in stop.change.walk.steps if one.name == step)
        )
        assert not re.search(r'(?:src|href)="(?!#)', html)


def test_a_notebook_is_valid_and_its_lesson_is_the_stations(every):
    nbformat = pytest.importorskip("nbformat")
    for stop in every.values():
        notebook = nbformat.reads(to_notebook(stop), as_version=4)
        nbformat.validate(notebook)
        code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        if stop.lesson is not None:
            document = eval(re.search(r"from_json\(\n(.*)\n\)\nshow", code[1], re.S)[1], {})
            lesson = from_json(json.loads(json.dumps(document)))
            assert lesson.tokens == stop.lesson.tokens
            torch.testing.assert_close(
                shown(walk_lesson(lesson), "weights"),
                shown(walk_lesson(stop.lesson), "weights"),
                atol=2e-3,  # numbers of four decimals, times those of the vectors
                rtol=0,
            )


def test_notebooks_run(every, tmp_path):
    """One after the other in the same process, which forgets the first: to start one is slow."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    heads, generation = (
        nbformat.reads(to_notebook(every[name]), as_version=4) for name in ("heads", "generation")
    )
    forget = nbformat.v4.new_code_cell("%reset -f")
    cells = [*heads.cells, forget, *generation.cells]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    both = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(both, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    for notebook in (heads, generation):
        (first, second) = [cell for cell in notebook.cells if cell.cell_type == "code"][1:]
        for cell in (first, second):
            assert "image/svg+xml" in cell.outputs[0].data
            assert "formula" not in cell.outputs[1].text
            assert len(cell.outputs[1].text) > 100


def test_another_next_token_leads_elsewhere():
    usual = walk_next_token("And the king said to the", follow=3)
    other = walk_next_token("And the king said to the", pick=usual.tokens[1], follow=3)
    assert usual.heat == other.heat
    assert usual.facts["text"] != other.facts["text"]
    assert len(usual.tokens) == LISTED
    probability = shown(usual, "probability")[0]
    logits = shown(usual, "logits")[0]
    torch.testing.assert_close(probability.log().diff(), logits.diff())
    assert probability.sum() < 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prompt": " "}, ArgumentError, "prompt is empty"),
        (
            {"prompt": "And", "pick": "xylophone"},
            UnknownNameError,
            "'xylophone' is not among the 8",
        ),
    ],
)
def test_bad_prompts(arguments, error, message):
    with pytest.raises(error, match=message):
        walk_next_token(**arguments)

"""A station as a Jupyter notebook that runs as it is (nbformat 4.5)."""

import json
from pprint import pformat
from typing import Any

from pellucid.common import files
from pellucid.lessons.lesson import Lesson
from pellucid.lessons.stations import Change, Question, Station

_IMPORTS = """\
from IPython.display import SVG, display

from pellucid.lessons.lesson import from_json
from pellucid.lessons.model import walk_model
from pellucid.lessons.next_token import walk_next_token
from pellucid.lessons.picture import to_svg
from pellucid.lessons.steps import walk_lesson


def show(walk):
    display(SVG(to_svg(walk)))
    for step in walk.steps:
        print(f"{step.name}: {step.formula}\\n    {step.sentence}")"""


def to_notebook(station: Station) -> str:
    """The notebook, as JSON."""
    cells = [
        _text(f"# {station.title}\n\n{station.idea}\n\n*{station.source}*"),
        _text("## Guess first\n\n" + _question(station.predict)),
        _code(_IMPORTS),
        _code(_computed(station)),
        _text(_answer(station.predict)),
        _text(
            f"## Change one thing\n\n{station.change.text}\n\n"
            "Change any number above or below, and run the cell again."
        ),
        _code(_computed(station.change)),
        _text(f"## Try your own sentence\n\n    {station.own}"),
        _text("## Check yourself\n\n" + _question(station.check)),
        _text(_answer(station.check)),
    ]
    notebook = {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return files.to_json(notebook, indent=1) + "\n"


def _computed(shown: Station | Change) -> str:
    if shown.lesson is None:
        return f"walk = {shown.call}\nshow(walk)"
    return f"lesson = from_json(\n{_literal(shown.lesson)}\n)\nshow(walk_lesson(lesson))"


def _literal(lesson: Lesson) -> str:
    """The lesson as a dictionary in Python, its numbers short where they are long."""

    def rounded(value: Any) -> Any:
        if isinstance(value, list):
            return [rounded(element) for element in value]
        return round(value, 4) if isinstance(value, float) else value

    document = {name: rounded(value) for name, value in json.loads(lesson.to_json()).items()}
    return pformat(document, width=98, sort_dicts=False, compact=True)


def _question(question: Question) -> str:
    choices = "\n".join(f"{n}. {choice.text}" for n, choice in enumerate(question.choices, start=1))
    return f"{question.text}\n\n{choices}"


def _answer(question: Question) -> str:
    lines = "\n".join(
        f"{n}. {'Right' if choice.is_right else 'Not quite'}: {choice.why}"
        for n, choice in enumerate(question.choices, start=1)
    )
    return f"<details><summary>The answer</summary>\n\n{lines}\n\n</details>"


def _text(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def _code(code: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": code,
    }

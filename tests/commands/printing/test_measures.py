"""What people read of a model that is trained."""

import io

import pytest
from rich.console import Console

from pellucid.commands.printing.confusion import MOST
from pellucid.commands.printing.measures import show


def shown(measures):
    console = Console(file=io.StringIO(), width=60, highlight=False)
    show(measures, console)
    return console.file.getvalue().splitlines()


def test_measures_are_lines():
    measures = {"macro_f1": 0.51239, "translated": 13, "signatures": ["a|b", "c|d"]}
    assert shown(measures) == ["macro f1: 0.5124", "translated: 13", "signatures: a|b; c|d"]


def test_confusions_of_few_labels_are_a_table():
    labels, confusion = ["good", "[b]bad", "none of it"], [[13, 2, 0], [1, 11, 0], [0, 0, 0]]
    *_, title, header, good, bad, none = shown({"labels": labels, "confusion": confusion})
    assert title == "Confusion matrix: true labels in rows, predicted in columns"
    assert header.split() == ["label", "1", "2", "3"]
    assert good.split() == ["1", "good", "13", "2", "0"]
    assert bad.split() == ["2", "[b]bad", "1", "11", "0"]
    assert none.split() == ["3", "none", "of", "it", "0", "0", "0"]


@pytest.mark.parametrize("wrong", [0, 1, 19])
def test_confusions_of_many_labels_are_the_strongest(wrong):
    count = 23
    confusion = [[7 if row == column else 0 for column in range(count)] for row in range(count)]
    for number in range(wrong):
        confusion[number][number + 1] = number + 1
    lines = shown({"labels": [f"n{number}" for number in range(count)], "confusion": confusion})
    expected = [f"{n:4}  n{n - 1} taken for n{n}" for n in range(wrong, 0, -1)][:MOST]
    assert lines == ["", *(["The most frequent mistakes"] if wrong else []), *expected]

"""Text on a terminal: wide letters, and letters from right to left."""

import io
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from pellucid.commands.printing.console import isolated, one_line, reorders, say

HEBREW = "שלום 12"


@pytest.mark.parametrize(
    ("environment", "does"),
    [
        ({"VTE_VERSION": "7600"}, True),
        ({"VTE_VERSION": "5202"}, False),
        ({"KONSOLE_VERSION": "230805"}, True),
        ({"TERM_PROGRAM": "Apple_Terminal"}, True),
        ({"TERM_PROGRAM": "vscode", "TERM": "xterm-256color"}, False),
        ({"TERM": "mlterm"}, True),
        ({}, False),
    ],
)
def test_terminals_that_reorder_get_isolates(environment, does, monkeypatch):
    assert reorders(environment) == does
    for name in ("VTE_VERSION", "KONSOLE_VERSION", "TERM_PROGRAM", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert isolated(HEBREW) == (f"\u2068{HEBREW}\u2069" if does else HEBREW)
    assert isolated("plain") == "plain"


def test_a_file_gets_no_isolates(monkeypatch):
    monkeypatch.setenv("VTE_VERSION", "7600")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert isolated(HEBREW) == HEBREW


def test_a_stranger_s_controls_are_never_printed(monkeypatch):
    monkeypatch.setenv("VTE_VERSION", "7600")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    hostile = "\u2069\u202eשלום\u200f1\u061c\u200e\n2\u2066"
    shown = one_line(hostile).plain
    assert shown[0] + shown[-1] == "\u2068\u2069"
    inside = shown[1:-1]
    controls = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    assert not set(controls) & set(inside)
    assert "שלום" in inside


@pytest.mark.parametrize("text", ["股票价格今天下跌了很多" * 9, "कीमत बढ़ी है " * 20, "word " * 40])
def test_wide_letters_are_wrapped_by_their_columns(text):
    console = Console(file=io.StringIO(), width=40)
    say(text, console, indent=5)
    lines = console.file.getvalue().splitlines()
    assert len(lines) > 2
    assert max(map(cell_len, lines)) <= 40
    assert all(line.startswith("     ") and line == line.rstrip() for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())

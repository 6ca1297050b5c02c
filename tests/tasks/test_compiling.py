"""Compilation is said where there is a terminal, and only when it happens."""

import sys

import pytest
from numba.core import event

from pellucid.tasks.compiling import COMPILING, compilation_named


@pytest.mark.parametrize(("is_terminal", "expected"), [(True, [(COMPILING, 0, 1)]), (False, [])])
def test_a_compilation_is_named_on_a_terminal_alone(monkeypatch, is_terminal, expected):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    said = []
    with compilation_named(lambda *step: said.append(step)):
        assert said == []
        with event.trigger_event("numba:compile", data={}):
            assert said == expected
    with event.trigger_event("numba:compile", data={}):
        assert said == expected


def test_without_numba_there_is_nothing_to_say(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "numba.core", None)
    with compilation_named(pytest.fail):
        pass

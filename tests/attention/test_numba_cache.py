"""What the cache of compiled functions does when something changes."""

import importlib.util
import sys

import pytest

HELPER = """
from pellucid.attention.numba_cache import kernel
STEP = {step}
@kernel
def moved(x):
    return x {sign} STEP
"""
MAIN = """
from helper import moved
from pellucid.attention.numba_cache import kernel
@kernel
def twice(x):
    return moved(moved(x))
"""


def test_what_a_function_calls_and_reads_is_never_stale(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    # Python's own cache would not see a change within a second that keeps the size.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "main.py").write_text(MAIN)

    def twice(step, sign="+"):
        (tmp_path / "helper.py").write_text(HELPER.format(step=step, sign=sign))
        for name in ("helper", "main"):
            spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, module)
            spec.loader.exec_module(module)
        return module.twice

    first = twice(3)
    assert first(100) == 106
    again = twice(3)
    assert again(100) == 106
    assert sum(again.stats.cache_hits.values()) == 1
    for step, sign, expected in ((5, "+", 110), (5, "-", 90)):
        changed = twice(step, sign)
        assert changed(100) == expected
        assert not changed.stats.cache_hits

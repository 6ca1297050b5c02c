"""What the cache of compiled functions does when something changes."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid.attention import numba_cache

HELPER = """
from numba import types
from numba.extending import intrinsic
from pellucid.attention.numba_cache import implementation, kernel
STEP = {step}
def times(builder, x, factor):
    return builder.mul(x, x.type({factor}))
def scaled(factor):
    @intrinsic
    def product(typing_context, x):
        def generate(context, builder, signature, arguments):
            return times(builder, arguments[0], factor)
        return types.int64(types.int64), generate
    return product
product = scaled(1)
def same(x):
    pass
@implementation(same)
def _same(x):
    return lambda x: x + {more}
@kernel
def moved(x):
    return same(product(x)) {sign} STEP
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

    def twice(step, sign="+", factor="factor", more=0):
        helper = HELPER.format(step=step, sign=sign, factor=factor, more=more)
        (tmp_path / "helper.py").write_text(helper)
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
    changes = (
        ((5, "+", "factor"), 110),
        ((5, "-", "factor"), 90),
        ((5, "-", 2), 385),
        ((5, "+", "factor", 7), 124),
    )
    for said, expected in changes:
        changed = twice(*said)
        assert changed(100) == expected
        assert not changed.stats.cache_hits


SLOW = """
import sys, time
sys.path.insert(0, {directory!r})
from numba import types
from numba.extending import intrinsic
from numba_cache import kernel
@intrinsic
def slow(typing_context, x):
    def generate(context, builder, signature, arguments):
        time.sleep(2)
        return arguments[0]
    return types.int64(types.int64), generate
@kernel
def same(x):
    return slow(x)
assert same(13) == 13
print(sum(same.stats.cache_hits.values()))
"""


def test_processes_that_start_at_once_compile_once(tmp_path):
    pytest.importorskip("fcntl")
    script = tmp_path / "slow.py"
    script.write_text(SLOW.format(directory=str(Path(numba_cache.__file__).parent)))
    command = [sys.executable, str(script)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sorted(process.communicate()[0].strip() for process in running) == ["0", "1", "1"]

"""What is compiled in the background: nothing waits for it, and results stay the same."""

import subprocess
import sys
import threading

import pytest
import torch

from pellucid.layers import background, decoding_step, matrix_vector
from pellucid.layers.background import compiling_in_background, may_call
from pellucid.models import Config, Decoder

numba = pytest.importorskip("numba")


@pytest.fixture
def held(monkeypatch):
    """Compilations begin once this is set."""
    monkeypatch.setattr(background, "WAIT", 0)
    gate = threading.Event()
    original = background._Job.__init__

    def waiting(job, function, kinds):
        original(job, function, kinds)
        compile_now = function.compile

        class Held:
            def compile(self, kinds):
                gate.wait(60)
                compile_now(kinds)

        job.function = Held()

    monkeypatch.setattr(background._Job, "__init__", waiting)
    yield gate
    gate.set()


def ended():
    """Wait until nothing is left to compile."""
    for thread in threading.enumerate():
        if thread.name == "compiling":
            thread.join(60)


def test_a_function_is_called_once_it_is_compiled(held):
    @numba.njit
    def double(x):
        return 2 * x

    assert may_call(double, 3)  # outside, it compiles when it is called
    assert not double.signatures
    with compiling_in_background():
        assert not may_call(double, 3)
        assert not may_call(double, 3)
        held.set()
        ended()
        assert may_call(double, 3)
        assert len(double.signatures) == 1
        assert double(3) == 6
        assert len(double.signatures) == 1


def test_what_cannot_be_compiled_is_said_by_the_call(held):
    @numba.njit
    def odd(x):
        return x.nothing

    held.set()
    with compiling_in_background():
        may_call(odd, 3)
        ended()
        assert may_call(odd, 3)
        with pytest.raises(numba.TypingError, match="nothing"):
            odd(3)


@pytest.mark.parametrize("is_int8", [False, True])
@torch.no_grad()
def test_meanwhile_a_model_gives_the_same(monkeypatch, is_int8):
    monkeypatch.setattr(matrix_vector, "WORTHWHILE", 0)
    torch.manual_seed(7)
    model = Decoder(Config(kind="decoder", vocabulary=61, width=24, heads=3, hidden=17)).eval()
    model = model.to_int8() if is_int8 else model
    ids = torch.randint(0, model.config.vocabulary, (3, 11))

    def steps():
        cache = model.cache(3, 11)
        found = [model(ids[:, :7], cache=cache, last=True)]
        found += [model(ids[:, [at]], cache=cache, last=True) for at in range(7, 11)]
        return torch.stack(found)

    expected, asked = steps(), []
    for module in (decoding_step, matrix_vector):
        monkeypatch.setattr(module, "may_call", lambda *call: asked.append(call[0]))
    found = steps()
    assert "blocks" in {function.py_func.__name__ for function in asked}
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 if is_int8 else 1e-5)


ENDING = """
from numba import njit
from pellucid.layers.background import compiling_in_background, may_call
function = njit(lambda x: x + 1)
for number in range(200):
    function = njit(eval("lambda x: inner(x) + number", {"inner": function, "number": number}))
with compiling_in_background():
    print(may_call(function, 1))
"""


def test_a_program_that_ends_does_not_wait_for_all_of_it():
    script = f"from pellucid.layers import background\nbackground.WAIT = 0\n{ENDING}"
    ran = subprocess.run(
        [sys.executable, "-c", script + "\nprint(len(function.signatures))"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "False\n0\n", "")

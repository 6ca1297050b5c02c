"""Ctrl-C at any moment while a watch or an intervention opens or closes: nothing is left behind."""

import signal
import sys
from contextlib import ExitStack

import pytest
import torch
from torch import nn

import pellucid
from pellucid.common.interrupts import held_back
from pellucid.lens.interception import listeners, patches

OURS = (
    "pellucid.lens.recorder",
    "pellucid.lens.open_listener",
    "pellucid.lens.interventions",
    "pellucid.lens.interception",
    "pellucid.common.interrupts",
)
OPENED = {
    "watch": lambda model: pellucid.watch(model, audit=True),
    "intervention": pellucid.intervene,
}


def lines_of(model, make, at=None):
    """The calls and lines that run as it opens and closes; Ctrl-C comes at one of them."""
    seen = []

    def press(frame, event, _):
        if not str(frame.f_globals.get("__name__")).startswith(OURS):
            return None
        if event in ("call", "line"):
            seen.append((frame.f_code.co_qualname, frame.f_lineno, event))
            if seen[-1] == at and seen.count(at) == 1:
                signal.raise_signal(signal.SIGINT)
        return press

    sys.settrace(press)
    try:
        with make(model):
            pass
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return seen


@pytest.mark.parametrize("what", OPENED)
def test_ctrl_c_at_every_line_leaves_nothing(what):
    make = OPENED[what]
    model = nn.MultiheadAttention(22, 2)
    before = signal.getsignal(signal.SIGINT)
    softmax, attend = torch.softmax, nn.functional.scaled_dot_product_attention
    lines = dict.fromkeys(lines_of(model, make))
    assert len(lines) > 100
    for line in lines:
        lines_of(model, make, at=line)
        assert listeners.active == (), line
        assert patches._patches == {}, line
        assert torch.softmax is softmax, line
        assert nn.functional.scaled_dot_product_attention is attend, line
        assert signal.getsignal(signal.SIGINT) is before, line


def test_looking_up_exit_closes_nothing():
    watch = pellucid.watch(nn.MultiheadAttention(22, 2))
    assert hasattr(watch, "__exit__")
    with ExitStack() as stack:
        stack.enter_context(watch)
        assert hasattr(watch, "__exit__")
        assert listeners.active == (watch,)
    assert listeners.active == ()
    watch = pellucid.watch(nn.MultiheadAttention(22, 2))
    with watch:
        assert hasattr(watch, "__exit__")
        assert listeners.active == (watch,)
    assert listeners.active == ()


def test_held_back_is_not_lost():
    done = []

    def work():
        with held_back(), held_back():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all of it"]

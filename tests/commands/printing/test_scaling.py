"""What a person sees of the measurement, on wide and narrow terminals."""

import io

import pytest
from rich.console import Console

from pellucid.commands.printing.scaling import show
from pellucid.lessons.scaling import measure_scaling


@pytest.mark.parametrize("width", [40, 60, 120])
def test_scaling_fits(width):
    stream = io.StringIO()
    show(measure_scaling((1, 4, 1024), samples=17), Console(file=stream, width=width))
    out = stream.getvalue()
    assert max(map(len, out.splitlines())) <= width
    assert "Vaswani et al. 2017" in out
    for heading in ("entropy", "largest", "lost"):
        assert heading in out
    assert ("≈" in out.split("undivided")[1].splitlines()[1]) == (width >= 72)
    assert "█" in out
    assert "▒" in out

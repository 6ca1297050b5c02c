"""What a person sees of heads on texts made for the purpose."""

import math
from io import StringIO

import pytest
from rich.console import Console

from pellucid.commands.printing import probes
from pellucid.lens.probes import Check, ProbeRow, ProbeTable

UNTRIED = {"effect": math.nan, "beats": math.nan, "random": 0}


def row(head, score, verdict, **found):
    return ProbeRow(
        probe="induction",
        layer=3,
        head=head,
        name="h.3.attn",
        score=score,
        baseline=0.0,
        verdict=verdict,
        **(UNTRIED | found),
    )


@pytest.fixture
def table():
    rows = [row(number, number / 50, "") for number in range(11)]
    rows += [
        row(11, 0.97, "earned", effect=1.5, beats=1.0, random=19),
        row(12, 0.87, "only looks so", effect=-0.25, beats=2 / 19, random=19),
        row(13, 0.77, "looks so"),
    ]
    check = Check(
        probe="induction",
        behaviour="log-probability of the repeated tokens, in nats per token",
        value=-2.5,
        absent=-14.0,
        is_there=True,
        heads=(("3", 11), ("3", 12)),
        without=-6.25,
        random=(-2.5, -3.5, -7.0),
        beats=2 / 3,
    )
    return ProbeTable(rows, [check], {"retrieval": "it needs a tokenizer"})


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_probe_is_told_in_full(table, width):
    written = StringIO()
    probes.show("a model", table, Console(file=written, width=width, highlight=False))
    out = written.getvalue()
    assert max(map(len, out.splitlines())) <= width
    lines = [line.split() for line in out.splitlines()]
    base = ["0%"] if width > 40 else []
    assert ["3.11", "97%", *base, "1.50", "19", "of", "19", "earned"] in lines
    assert ["3.12", "87%", *base, "-0.25", "2", "of", "19", "only", "looks", "so"] in lines
    assert ["3.13", "77%", *base, "-", "-", "looks", "so"] in lines
    assert ["3.10", "20%", *base, "-", "-"] in lines
    assert "3.8" not in out  # the highest scores only
    told = " ".join(out.split())
    for part in (
        "Induction: looks at what followed the same token in the first half (Olsson et al. 2022)",
        "3 heads of 14 look so. Log-probability of the repeated tokens, in nats per token: -2.50; "
        "-14.00 where it cannot.",
        "Without 3.11 and 3.12: -6.25, less than in 2 of 3 draws without as many random heads of "
        "the same layers (-4.33 ± 2.36).",
        "Not run retrieval: it needs a tokenizer",
        "Names that are earned induction: 3.11",
    ):
        assert part in told

"""The scaling measurement as a picture: four small charts, d_k from left to right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pellucid.common.drawing import frame, lines, safe
from pellucid.lessons.scaling import Measures, Scaling, Theory

_WIDTH, _HEIGHT = 760.0, 596.0
_PANEL = (310.0, 180.0)
_LEFT, _TOP = (64.0, 432.0), (142.0, 382.0)
_UNDIVIDED, _DIVIDED = "#c2570c", "#2b7eb3"
"""Orange and blue, told apart with every kind of colour blindness, on light and on dark."""


@dataclass(frozen=True)
class _Line:
    numbers: Sequence[float | None]
    colour: str
    dashed: bool = False


def to_svg(scaling: Scaling) -> str:
    """The four charts as a self-contained SVG; dashed lines are what theory expects."""
    rows = scaling.rows

    def measured(name: str) -> list[_Line]:
        def of(measures: Sequence[Measures]) -> list[float]:
            return [getattr(measure, name) for measure in measures]

        return [
            _Line(of([row.unscaled for row in rows]), _UNDIVIDED),
            _Line(of([row.scaled for row in rows]), _DIVIDED),
        ]

    def expected(name: str) -> list[_Line]:
        def of(theories: Sequence[Theory]) -> list[float | None]:
            return [getattr(theory, name) for theory in theories]

        return [
            _Line(of([row.unscaled_theory for row in rows]), _UNDIVIDED, dashed=True),
            _Line(of([row.scaled_theory for row in rows]), _DIVIDED, dashed=True),
        ]

    panels = (
        ("variance of q · k, log scale", [*measured("variance"), *expected("variance")], True),
        ("entropy of the softmax, nats", [*measured("entropy"), *expected("entropy")], False),
        ("largest weight", measured("largest"), False),
        ("queries left with hardly any gradient", measured("lost"), False),
    )
    title = "Why divide the scores by √d_k?"
    body = lines(title, 32, 46, 22, 700, "title")
    body += lines(
        f"{scaling.samples} random queries, {scaling.keys} keys each; after Vaswani et al. 2017, "
        "section 3.2.1, footnote 4.",
        32,
        72,
        13,
        700,
        "soft",
    )
    body += _key()
    dims = [row.d_k for row in rows]
    for place, (heading, drawn, logarithmic) in enumerate(panels):
        body += _panel(_LEFT[place % 2], _TOP[place // 2], heading, dims, drawn, logarithmic)
    return frame(f"{title} {scaling.sentence()}", _WIDTH, _HEIGHT, body)


def _key() -> list[str]:
    parts = []
    for x, name, colour, dash in (
        (32, "undivided", _UNDIVIDED, ""),
        (140, "divided by √d_k", _DIVIDED, ""),
        (284, "theory (an approximation but for the variance)", "var(--ink)", "4 4"),
    ):
        parts.append(
            f'<line x1="{x}" x2="{x + 22}" y1="96" y2="96" style="stroke:{colour}" '
            f'stroke-width="3" stroke-dasharray="{dash or "none"}"/>'
        )
        parts += lines(name, x + 28, 100, 13, 400)
    return parts


def _panel(
    left: float, top: float, heading: str, dims: list[int], drawn: list[_Line], logarithmic: bool
) -> list[str]:
    width, height = _PANEL
    width, height = width - 20, height - 10
    known = [number for line in drawn for number in line.numbers if number is not None]
    low, high = (min(0.5, *known), max(known)) if logarithmic else (0.0, max(1.0, *known))

    def x(d_k: int) -> float:
        first, last = math.log(dims[0]), math.log(dims[-1])
        part = 0.5 if first == last else (math.log(d_k) - first) / (last - first)
        return left + width * part

    def y(number: float) -> float:
        if logarithmic:
            part = math.log(number / low) / math.log(high / low)
        else:
            part = (number - low) / (high - low)
        return top + height * (1 - part)

    parts = lines(heading, left, top - 12, 14, width)
    for tick in _ticks(low, high, logarithmic):
        parts.append(
            f'<path d="M{left:g} {y(tick):.1f}H{left + width:g}" class="line"/>'
            f'<text x="{left - 8:g}" y="{y(tick) + 4:.1f}" font-size="11" text-anchor="end" '
            f'class="soft">{tick:g}</text>'
        )
    parts.append(
        f'<text x="{left - 8:g}" y="{top + height + 18:g}" font-size="11" text-anchor="end" '
        'class="soft">d_k</text>'
    )
    for d_k in dims:
        parts.append(
            f'<text x="{x(d_k):.1f}" y="{top + height + 18:g}" font-size="11" '
            f'text-anchor="middle" class="soft">{d_k}</text>'
        )
    for line in drawn:
        points = [
            (d_k, number)
            for d_k, number in zip(dims, line.numbers, strict=True)
            if number is not None
        ]
        path = "L".join(f"{x(d_k):.1f} {y(number):.1f}" for d_k, number in points)
        dash = ' stroke-dasharray="4 4"' if line.dashed else ""
        if path:
            parts.append(
                f'<path d="M{path}" fill="none" stroke="{line.colour}" stroke-width="'
                f'{1.5 if line.dashed else 2.5}" stroke-linejoin="round"{dash}/>'
            )
        if not line.dashed:
            parts += [
                f'<circle cx="{x(d_k):.1f}" cy="{y(number):.1f}" r="3.5" fill="{line.colour}">'
                f"<title>{safe(f'd_k = {d_k}: {number:.3g}')}</title></circle>"
                for d_k, number in points
            ]
    return parts


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        return [10.0**power for power in powers]
    step = next(size for size in (0.25, 0.5, 1, 2, 5, 10) if high / size <= 5)
    return [step * number for number in range(int(high / step) + 1)]

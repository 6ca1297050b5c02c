"""The loss curve of a run as an SVG: training and held-out loss."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from pellucid.common.drawing import frame, lines, safe

_WIDTH, _HEIGHT = 760.0, 440.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 728.0, 108.0, 388.0
_TRAINING, _HELD_OUT = "#2b7eb3", "#c2570c"
"""Blue and orange, which are distinct with every kind of colour blindness, on light and on dark."""
MOST_POINTS = 600
"""Stretches of a line, about one per pixel; each keeps its minimum and maximum."""
SMOOTHING = 0.02
"""The share of the steps on either side that a point is smoothed over."""

Array = np.ndarray[Any, np.dtype[np.float64]]


def to_svg(training: ArrayLike, held_out: ArrayLike) -> str:
    """Draw the curves as a self-contained SVG.

    Args:
        training: (steps, 2), steps and losses in nats, in order; at least one, all finite.
        held_out: (evaluations, 2), likewise; may be empty.
    """
    raw = np.array(training, dtype=float).reshape(-1, 2)
    smooth = np.column_stack([raw[:, 0], smoothed(raw[:, 1])])
    judged = np.array(held_out, dtype=float).reshape(-1, 2)
    steps = int(max(raw[-1, 0], *judged[:, 0], 1))
    low, high, is_log = extent(raw[:, 1], smooth[:, 1], judged[:, 1])

    def x(step: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * step / steps

    def y(loss: float) -> float:
        scale: Callable[[float], float] = math.log if is_log else float
        # Spikes of the raw loss are clipped.
        part = (scale(min(max(loss, low), high)) - scale(low)) / (scale(high) - scale(low))
        return _BOTTOM - (_BOTTOM - _TOP) * part

    def path(points: Array) -> str:
        return "L".join(f"{x(step):.1f} {y(loss):.1f}" for step, loss in points)

    body = lines("Loss", 32, 46, 20, 696, "title")
    body += _key(smooth, judged)
    body += _axes(x, y, steps, ticks(low, high, is_log), is_log)
    body += [
        f'<path d="M{path(_thinned(raw))}" fill="none" stroke="{_TRAINING}" stroke-width="1" '
        'stroke-opacity="0.4" stroke-linejoin="round"/>',
        f'<path d="M{path(_thinned(smooth))}h0" fill="none" stroke="{_TRAINING}" '
        'stroke-width="2.5" stroke-linejoin="round" stroke-linecap="round"/>',
    ]
    if len(judged):
        body.append(
            f'<path d="M{path(_thinned(judged))}" fill="none" stroke="{_HELD_OUT}" '
            'stroke-width="2.5" stroke-linejoin="round" stroke-linecap="round"/>'
        )
        for step, loss in judged if len(judged) <= 60 else ():
            label = safe(f"held out, step {step:,.0f}: {loss:.4g}")
            body.append(
                f'<circle cx="{x(step):.1f}" cy="{y(loss):.1f}" r="3.5" fill="{_HELD_OUT}">'
                f"<title>{label}</title></circle>"
            )
        step, loss = judged[judged[:, 1].argmin()]
        body.append(
            f'<circle cx="{x(step):.1f}" cy="{y(loss):.1f}" r="7" fill="none" '
            f'stroke="{_HELD_OUT}" stroke-width="2"/>'
        )
    return frame(f"Loss after {steps:,} steps. {_summary(smooth, judged)}", _WIDTH, _HEIGHT, body)


def smoothed(losses: Array) -> Array:
    """The losses, (steps,), smoothed by a median filter and a moving average.

    The average is over fewer steps at the start, where the curve falls steeply.
    """
    count = len(losses)
    calm = np.median(sliding_window_view(np.pad(losses, 2, mode="edge"), 5), axis=-1)
    place = np.arange(count)
    reach = np.minimum(place // 4, math.ceil(SMOOTHING * count))
    first, last = place - reach, np.minimum(place + reach, count - 1)
    sums = np.concatenate([[0.0], calm.cumsum()])
    means: Array = (sums[last + 1] - sums[first]) / (last + 1 - first)
    return means


def extent(raw: Array, smooth: Array, judged: Array) -> tuple[float, float, bool]:
    """The limits of the axis, and whether its scale is logarithmic.

    It is logarithmic if the loss has halved and most of the run would be in the lower half of a
    linear scale.
    """
    # Ignore a few spikes, which would flatten the rest.
    inner = np.quantile(raw, [0.005, 0.995])
    shown = np.concatenate([inner, smooth, judged])
    low, high = float(shown.min()), float(shown.max())
    is_log = 0 < 2 * low < high and float(np.median(smooth)) < (low + high) / 2
    if is_log:
        room = (high / low) ** 0.04
        return low / room, high * room, True
    room = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    return (max(low - room, 0.0) if low >= 0 else low - room), high + room, False


def ticks(low: float, high: float, is_log: bool = False) -> list[float]:
    """About five round numbers from `low` to `high`."""
    if is_log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for parts in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 5, 6, 8)):
            candidates = (part * 10.0**power for power in powers for part in parts)
            visible = [tick for tick in candidates if low <= tick <= high]
            if len(visible) >= 4:
                return visible
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(part * power for part in (1, 2, 2.5, 5, 10) if part * power >= rough)
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _axes(
    x: Callable[[float], float],
    y: Callable[[float], float],
    steps: int,
    losses: list[float],
    is_log: bool,
) -> list[str]:
    parts = lines("nats, log scale" if is_log else "nats", 32, 92, 11, 300, "soft")
    for tick in losses:
        parts.append(
            f'<path d="M{_LEFT:g} {y(tick):.1f}H{_RIGHT:g}" class="line"/>'
            f'<text x="{_LEFT - 8:g}" y="{y(tick) + 4:.1f}" font-size="11" text-anchor="end" '
            f'class="soft">{round(tick, 9):g}</text>'
        )
    parts += [
        f'<text x="{x(tick):.1f}" y="{_BOTTOM + 20:g}" font-size="11" text-anchor="middle" '
        f'class="soft">{tick:,.0f}</text>'
        for tick in ticks(0, steps)
        if tick == int(tick)
    ]
    parts.append(
        f'<text x="{(_LEFT + _RIGHT) / 2:g}" y="{_BOTTOM + 38:g}" font-size="11" '
        'text-anchor="middle" class="soft">steps</text>'
    )
    return parts


def _key(smooth: Array, judged: Array) -> list[str]:
    """The legend, with the latest losses."""
    names = [(f"training {smooth[-1, 1]:.3f}", _TRAINING)]
    if len(judged):
        step, loss = judged[judged[:, 1].argmin()]
        best = "the best" if step == judged[-1, 0] else f"best {loss:.3f} at step {step:,.0f}"
        names.append((f"held out {judged[-1, 1]:.3f} ({best})", _HELD_OUT))
    parts, left = [], 32.0
    for name, colour in names:
        parts.append(
            f'<line x1="{left:g}" x2="{left + 22:g}" y1="66" y2="66" stroke="{colour}" '
            'stroke-width="3"/>'
        )
        parts += lines(name, left + 28, 70, 13, 500)
        left += 44 + 7.2 * len(name)
    return parts


def _summary(smooth: Array, judged: Array) -> str:
    summary = f"Training {smooth[-1, 1]:.3f}"
    return f"{summary}, held out {judged[-1, 1]:.3f}." if len(judged) else f"{summary}."


def _thinned(points: Array) -> Array:
    """Fewer points that draw the same line."""
    if len(points) <= MOST_POINTS:
        return points
    kept = [
        start + np.sort([stretch.argmin(), stretch.argmax()])
        for start, stretch in _stretches(points[:, 1])
    ]
    indices = np.unique(np.concatenate([[0], *kept, [len(points) - 1]]))
    thinned: Array = points[indices]
    return thinned


def _stretches(losses: Array) -> list[tuple[int, Array]]:
    starts = np.linspace(0, len(losses), MOST_POINTS, endpoint=False).astype(int)
    ends = [*starts[1:], len(losses)]
    return [(int(a), losses[a:b]) for a, b in zip(starts, ends, strict=True) if b > a]

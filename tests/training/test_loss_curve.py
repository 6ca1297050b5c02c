"""The picture of the loss: well formed, readable, and as large for long runs as for short ones."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.training.loss_curve import extent, smoothed, ticks, to_svg

SVG = "{http://www.w3.org/2000/svg}"
losses = st.floats(-1e6, 1e6)


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def falling(steps):
    at = np.arange(1, steps + 1)
    return np.column_stack([at, 2 + 6 * np.exp(-at / (steps / 10))])


@given(st.lists(losses, min_size=1, max_size=70), st.lists(losses, max_size=70))
def test_every_run_is_a_picture_and_nothing_leaves_it(training, held_out):
    svg = to_svg(list(enumerate(training, 1)), list(enumerate(held_out, 1)))
    root = ElementTree.fromstring(svg)
    assert "nan" not in svg
    assert "inf" not in svg.replace("info", "")
    for element in root.iter():
        for number in re.findall(r"-?[\d.]+", element.get("d") or ""):
            assert 0 <= float(number) <= 760
    for circle in root.iter(f"{SVG}circle"):
        assert 100 <= float(circle.get("cy")) <= 400


def test_it_says_what_is_drawn_and_where_it_was_best():
    svg = to_svg([(1, 8.0), (2, 5.0)], [(1000, 4.25), (2000, 4.5)])
    assert {"training 5.000", "held out 4.500 (best 4.250 at step 1,000)", "steps"} <= set(
        texts(svg)
    )
    title = ElementTree.fromstring(svg).find(f"{SVG}title").text
    assert title == "Loss after 2,000 steps. Training 5.000, held out 4.500."
    assert not re.search(r'(href|src|url\()\s*=?\s*["\']?http', svg)


def test_a_long_run_is_no_larger_and_keeps_its_spikes():
    run = falling(50_000)
    run[30_000, 1] = 7.5
    svg = to_svg(run, [*run[999::1000]])
    assert len(svg) < 60_000
    raw = ElementTree.fromstring(svg).find(f"{SVG}path[@stroke-opacity]").get("d")
    points = [tuple(map(float, point.split())) for point in raw[1:].split("L")]
    spike = [y for x, y in points if 455 < x < 470]
    assert min(spike) < max(spike) - 200


def test_smoothing_keeps_lines_where_they_are():
    line = np.linspace(9.0, 2.0, 500)
    smooth = smoothed(line)
    assert smooth[0] == line[0]
    assert np.allclose(smooth[:489], line[:489])  # later ones have fewer after them than before
    noise = np.random.default_rng(0).normal(size=5000)
    assert smoothed(noise)[500:].std() < 0.15


@pytest.mark.parametrize(
    ("low", "high", "is_log", "expected"),
    [
        (0, 20_000, False, [0, 5000, 10_000, 15_000, 20_000]),
        (3.1, 4.2, False, [3.25, 3.5, 3.75, 4.0]),
        (2.9, 8.4, True, [3, 4, 5, 6, 8]),
        (0.009, 8, True, [0.01, 0.03, 0.1, 0.3, 1, 3]),
        (1e-6, 8, True, [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1]),
        (2.2, 4.6, True, [2.5, 3, 3.5, 4, 4.5]),
    ],
)
def test_ticks_are_round(low, high, is_log, expected):
    assert ticks(low, high, is_log) == pytest.approx(expected)


def test_the_scale_is_logarithmic_where_that_shows_more():
    none = np.array([])

    def is_log(losses):
        return extent(losses, losses, none)[2]

    assert is_log(falling(1000)[:, 1])
    assert not is_log(np.linspace(8, 2, 1000))  # as much above the middle as below
    assert not is_log(np.linspace(3.2, 3.0, 1000))  # next to no difference
    assert not is_log(falling(1000)[:, 1] - 2.5)  # no logarithm


def test_a_spike_does_not_press_all_else_flat():
    run = np.full(1000, 3.0)
    run[500:502] = 1e4
    assert extent(run, smoothed(run), np.array([]))[1] < 4

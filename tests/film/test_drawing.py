"""What is drawn: only what changes, letters of every script, colours that can be read."""

import subprocess
import sys

import numpy as np
import pytest

from pellucid.common.colours import contrast
from pellucid.film import fonts
from pellucid.film.drawing import Painter, png
from pellucid.film.prompt import understood
from pellucid.film.style import LOOKS
from pellucid.film.walk_sources import walk_wished
from tests.film.films import composed, staged


def test_what_is_drawn_again_is_as_drawn_anew():
    """Only the part that changed is drawn again, and the whole is as if all of it were."""
    walk, query, finds = walk_wished(understood("show 'it' in 'The king said it was good'"))
    picture = staged(composed(walk, spoken=False, query=query, finds=finds))
    going = Painter(picture)
    for number in range(0, round(picture.seconds * 30), 7):
        going.draw(number / 30)
        if number % 5 == 0:
            fresh = Painter(picture)
            fresh.draw(number / 30)
            far = np.abs(going.pixels.astype(int) - fresh.pixels)
            # What is cut by the edge of what is drawn again is rounded otherwise: a few pixels.
            assert far.max() <= 16, number
            assert (far > 2).sum() <= 60, number
    assert going.drawn > 40


def test_a_still_frame_is_not_drawn_again():
    picture = staged(composed(spoken=False))
    painter = Painter(picture)
    assert painter.draw(0.1)
    assert not painter.draw(0.2)
    assert painter.drawn == 1


def test_png():
    picture = staged(composed(spoken=False))
    painter = Painter(picture)
    painter.draw(0)
    assert png(painter.pixels).startswith(b"\x89PNG")


@pytest.mark.parametrize("theme", LOOKS)
def test_every_colour_of_text_can_be_read(theme):
    look = LOOKS[theme]
    for colour in (look.ink, look.soft, look.query, look.key, look.value, look.result):
        assert contrast(colour, look.paper) >= 4.5  # WCAG 2.2, 1.4.3


def test_texts_are_as_wide_as_they_are_drawn():
    for text in ("Write a poem", "−0.42", "naïve Жé Ω", "keysᵀ"):
        assert 0.2 * len(text) < fonts.width(text, 500) < 0.9 * len(text)
    assert fonts.width("ab", 500) == pytest.approx(
        fonts.width("a", 500) + fonts.width("b", 500), abs=0.02
    )


BARE = """
import skia
assert skia.FontMgr().countFamilies() == 0
from pellucid.film import fonts
assert fonts.missing(["Write Ж שלום 日"]) == "שלום日"
assert fonts.width("Write", 500) > 2
assert fonts.width("שלום", 500) > 2  # as boxes
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system has fonts")
def test_a_machine_without_fonts(tmp_path, monkeypatch):
    config = tmp_path / "fonts.conf"
    config.write_text(f"<fontconfig><dir>{tmp_path / 'none'}</dir></fontconfig>")
    monkeypatch.setenv("FONTCONFIG_FILE", str(config))
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

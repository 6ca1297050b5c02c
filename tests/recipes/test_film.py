"""The moving picture that opens the README is small, and made by its recipe."""

import pytest

pytest.importorskip("skia", exc_type=ImportError)
pytest.importorskip("av")

from recipes import film
from tests.film.films import read


@pytest.mark.slow
def test_it_is_small_and_lasts_ten_seconds(monkeypatch, tmp_path):
    shipped = film.PAGE.read_bytes()
    assert len(shipped) < film.MOST_BYTES
    monkeypatch.setattr(film, "PAGE", tmp_path / "film.gif")
    film.main()
    ours, theirs = read(film.PAGE), read(tmp_path / "film.gif")
    assert 9 < ours.times[-1] < 12
    assert ours.times == theirs.times
    assert ours.frames[0].shape == film.SIZE[::-1]

"""A file appears whole or not at all."""

import os
from pathlib import Path

import pytest

from pellucid.errors import FileError
from pellucid.lessons.files import write_whole


def test_a_new_file_has_the_usual_rights(tmp_path):
    path = tmp_path / "poem.svg"
    write_whole(path, "wörd −∞")
    assert path.read_text(encoding="utf-8") == "wörd −∞"
    usual = tmp_path / "usual"
    usual.touch()
    assert path.stat().st_mode == usual.stat().st_mode
    write_whole(path, "again")
    assert path.read_text() == "again"


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "poem.svg"
    path.write_text("old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(FileError, match=r"cannot write '.*poem\.svg': No space left on device"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("place", "message"), [("nowhere/x.svg", "No such file or directory"), (".", "is a directory")]
)
def test_places_that_cannot_be_written(tmp_path, place, message):
    with pytest.raises(FileError, match=message):
        write_whole(tmp_path / Path(place), "text")

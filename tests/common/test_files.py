"""A file appears whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from pellucid.common.files import (
    check_writable,
    is_blank,
    printable,
    write_whole,
    written_whole,
)
from pellucid.errors import FileError


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
    for check in (check_writable, lambda path: write_whole(path, "text")):
        with pytest.raises(FileError, match=message):
            check(tmp_path / place)


@pytest.mark.parametrize("old", [None, "old"])
def test_to_check_a_place_changes_nothing(tmp_path, old):
    path = tmp_path / "poem.svg"
    if old is not None:
        path.write_text(old)
    check_writable(path)
    assert [one.read_text() for one in tmp_path.iterdir()] == ([] if old is None else [old])


def test_the_first_error_is_the_one_that_is_said(tmp_path):
    def fill_the_disk():
        with written_whole(tmp_path / "a") as aside:
            aside.unlink()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(FileError, match="No space left"):
        fill_the_disk()
    assert not list(tmp_path.iterdir())


def test_a_link_stays_a_link(tmp_path):
    real, link, dangling = (tmp_path / name for name in ("real", "link", "dangling"))
    real.write_text("old")
    link.symlink_to(real)
    dangling.symlink_to("made")
    write_whole(link, "new")
    write_whole(dangling, "new")
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert real.read_text() == (tmp_path / "made").read_text() == "new"


@pytest.mark.parametrize("rights", [0o600, 0o664])
def test_a_file_keeps_its_rights(tmp_path, rights):
    path = tmp_path / "poem.svg"
    path.touch()
    path.chmod(rights)
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == rights


def test_what_is_no_file_is_left_alone(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, Path(os.devnull)):
        with pytest.raises(FileError, match="it is not a regular file"):
            write_whole(place, "text")
    assert pipe.is_fifo()
    assert not Path(os.devnull).is_file()


def test_long_names(tmp_path):
    longest = tmp_path / ("a" * 255)
    write_whole(longest, "text")
    assert longest.read_text() == "text"
    with pytest.raises(FileError, match="File name too long") as caught:
        write_whole(tmp_path / ("a" * 5000), "text")
    assert len(str(caught.value)) < 300


def test_links_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(FileError, match="cannot write"):
        write_whole(tmp_path / "a", "text")


def test_control_characters_are_replaced():
    assert printable("a\x1b[31m\x7f\x9b\rb\n\tä🙂") == "a\ufffd[31m\ufffd\ufffd b\n\tä🙂"


@pytest.mark.parametrize(
    "text",
    ["", " \t\n", "\u200b\ufeff", "\x1b\x07", "\u2028\u3000\xa0", "\xad\u2060", "\u3164\U000e0041"],
)
def test_blank(text):
    assert is_blank(text)
    assert not is_blank(f"{text}.")


@pytest.mark.parametrize("sign", ["\u0600", "\u0605", "\u06dd", "\u070f", "\u08e2", "\U000110bd"])
def test_format_characters_that_are_to_be_seen(sign):
    assert not is_blank(sign)

"""Ids on disk: what was written is read, whole or not at all."""

import json
import resource
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import ArgumentError, FileError
from pellucid.training import sequences
from pellucid.training.sequences import Sequences, building

TEXTS = [[5], [3, 1, 4], [2, 7]]


@given(
    texts=st.lists(st.lists(st.integers(0, 36), min_size=1, max_size=5), min_size=1),
    chunk=st.integers(1, 7),
)
def test_what_is_written_is_read(tmp_path_factory, texts, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "CHUNK", chunk)
        found = Sequences.build(tmp_path_factory.mktemp("a") / "b", texts, 37, size=11)
    assert [one.tolist() for one in found] == texts
    assert found[-1].tolist() == texts[-1]
    assert found.lengths.tolist() == [len(one) for one in texts]
    assert found.ends.tolist() == np.cumsum(found.lengths).tolist()
    assert found.span(0, len(found.ids)).tolist() == [number for one in texts for number in one]
    assert (len(found), found.bytes) == (len(texts), 11)
    with pytest.raises(IndexError):
        found[-len(texts) - 1]


@pytest.mark.parametrize(("vocabulary", "dtype"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_ids_take_as_few_bytes_as_they_can(tmp_path, vocabulary, dtype):
    found = Sequences.build(tmp_path / "a", [[0, vocabulary - 1]], vocabulary)
    assert found.ids.dtype == dtype
    assert found[0].tolist() == [0, vocabulary - 1]


def test_sequences_in_parts(tmp_path):
    with building(tmp_path / "a", 37) as builder:
        for text in TEXTS:
            for number in text:
                builder.extend([number])
            builder.end()
        builder.bytes = 13
    found = Sequences(tmp_path / "a")
    assert ([one.tolist() for one in found], found.bytes) == (TEXTS, 13)


def test_memory_does_not_grow_with_the_sequences(tmp_path, monkeypatch):
    monkeypatch.setattr(sequences, "CHUNK", 2**16)
    sequences.Sequences.build(tmp_path / "a", [[1]], 37)  # what is imported on the way
    tracemalloc.start()
    try:
        Sequences.build(tmp_path / "a", ([1, 2] for _ in range(3 * sequences.CHUNK)), 37)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.5 * 8 * sequences.CHUNK + 2**20


def test_progress_is_told(tmp_path):
    told = []
    Sequences.build(tmp_path / "a", [[1]] * 2500, 37, progress=told.append)
    assert told == [1000, 2000]


@pytest.mark.parametrize(
    ("texts", "told"),
    [([[1], []], "sequence 2 is empty"), ([], "there are no sequences to write")],
)
def test_sequences_that_are_none(tmp_path, texts, told):
    Sequences.build(tmp_path / "a", TEXTS, 37)
    with pytest.raises(ArgumentError, match=told):
        Sequences.build(tmp_path / "a", texts, 37)
    assert len(Sequences(tmp_path / "a")) == 3, "what was there is as it was"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_leaves_what_was_there(tmp_path):
    Sequences.build(tmp_path / "a", TEXTS, 37)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        with pytest.raises(FileError, match=r"cannot write '.*a': File too large"):
            Sequences.build(tmp_path / "a", [range(37)] * 2**12, 37)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [one.tolist() for one in Sequences(tmp_path / "a")] == TEXTS
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_nothing_can_be_written_below_a_file(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(FileError, match="cannot write"):
        Sequences.build(tmp_path / "a" / "b", TEXTS, 37)


def test_directories_that_hold_none(tmp_path):
    with pytest.raises(FileError, match="has no sequences"):
        Sequences(tmp_path / "none")
    found = Sequences.build(tmp_path / "a", TEXTS, 37)
    found.ids.tofile(tmp_path / "a" / "ends")
    with pytest.raises(FileError, match=r"is damaged|has no sequences"):
        Sequences(tmp_path / "a")
    for wrong in ("", "{}", "[]", json.dumps({"dtype": "ids"})):
        (tmp_path / "a" / "about.json").write_text(wrong)
        with pytest.raises(FileError, match="has no sequences"):
            Sequences(tmp_path / "a")

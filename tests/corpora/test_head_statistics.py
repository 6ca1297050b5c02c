"""Heads over a corpus: equal to NumPy over all documents at once, in memory of one part."""

import shutil

import numpy as np
import pytest
from pyarrow import parquet
from scipy import stats

from pellucid import corpora, errors
from pellucid.corpora.head_statistics import MEASURES, Moments
from pellucid.lens import heads, watch
from pellucid.readers.forward_pass import inputs_of
from pellucid.readers.opening import open_checkpoint
from tests.corpora.folders import TEXTS, folder_of, rows_of

ODD = "Aha aha aha aha aha aha aha aha aha aha aha aha."


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    folder = folder_of(directory, [*TEXTS[:20], ODD])
    corpora.run(folder, directory / "out", corpora.MeasureHeads(), size=5)
    return directory / "out"


def test_means_and_intervals_are_those_of_all_documents_at_once(measured):
    found, rows = corpora.summarise_heads(measured), rows_of(measured)
    assert found.documents == 21
    assert found.tokens == sum(row["tokens"] for row in rows) // len(found.heads)
    for head in found.heads[::5]:
        own = [row for row in rows if (row["name"], row["head"]) == (head.name, head.head)]
        assert sum(head.roles.values()) == pytest.approx(1)
        for name in MEASURES:
            values = np.array([row[name] for row in own if row[name] is not None])
            moments = head.measures[name]
            assert moments.number == len(values)
            if len(values) > 1:
                interval = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
                ours = (moments.mean - moments.half_width, moments.mean + moments.half_width)
                if values.std() > 1e-9:
                    assert ours == pytest.approx(interval, abs=1e-9)


def test_a_document_is_measured_as_it_is_alone(measured):
    checkpoint = open_checkpoint(None)
    inputs = inputs_of(ODD, None, checkpoint, None)
    with watch(checkpoint.model, tokenizer=checkpoint.tokenizer) as seen:
        checkpoint.run(**inputs)
    rows = [row for row in rows_of(measured) if row["line"] == 12 and "csv" in row["file"]]
    for ours, alone in zip(rows, heads(seen).to_dicts(), strict=True):
        for name in MEASURES:
            assert ours[name] == pytest.approx(alone[name], abs=1e-5), name


def test_an_older_run_has_no_special_tokens(measured, tmp_path):
    shutil.copytree(measured, tmp_path / "out")
    for part in (tmp_path / "out" / "parts").glob("*.parquet"):
        parquet.write_table(parquet.read_table(part).drop_columns("special"), part)
    older, newer = (corpora.summarise_heads(one) for one in (tmp_path / "out", measured))
    for one, other in zip(older.heads, newer.heads, strict=True):
        assert one.measures["special"].number == 0
        assert one.measures["punctuation"].mean == other.measures["punctuation"].mean
    for part in (tmp_path / "out" / "parts").glob("*.parquet"):
        parquet.write_table(parquet.read_table(part).drop_columns("first"), part)
    with pytest.raises(errors.FileError, match="is not a run of heads: it has no first"):
        corpora.summarise_heads(tmp_path / "out")


def test_the_document_that_differs_is_found(measured):
    found = corpora.summarise_heads(measured, most=7)
    assert len(found.unlike) == 7
    assert [one.deviations for one in found.unlike] == sorted(
        (one.deviations for one in found.unlike), reverse=True
    )
    best = found.unlike[0]
    assert (best.file.endswith("b.csv"), best.line) == (True, 12)
    rows = [
        row
        for row in rows_of(measured)
        if (row["layer"], row["head"], row["stack"]) == (best.layer, best.head, best.stack)
    ]
    values = np.array([row[best.measure] for row in rows if row[best.measure] is not None])
    away = np.abs(values - values.mean()) / values.std(ddof=1)
    assert best.deviations == pytest.approx(away.max())


@pytest.mark.parametrize("pieces", [[5, 7, 11], [1, 1, 1], [0, 3, 0, 2]])
def test_moments_of_pieces_are_those_of_the_whole(pieces):
    values = np.random.default_rng(3).normal(1e6, 1e-2, sum(pieces))
    moments, start = Moments(), 0
    for piece in pieces:
        moments.add(values[start : start + piece])
        start += piece
    assert moments.number == len(values)
    assert moments.mean == pytest.approx(values.mean(), rel=1e-12)
    assert moments.deviation == pytest.approx(values.std(ddof=1), rel=1e-6)


def test_other_directories_are_refused(measured, tmp_path):
    with pytest.raises(errors.FileError, match="not a run"):
        corpora.summarise_heads(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("one\n", encoding="utf-8")
    corpora.run(tmp_path / "in", tmp_path / "out", corpora.Embed())
    with pytest.raises(errors.FileError, match="not a run of heads"):
        corpora.summarise_heads(tmp_path / "out")

"""--over at the command line."""

import json

import pytest

from tests.corpora.folders import TEXTS, folder_of, rows_of


@pytest.fixture
def folder(tmp_path):
    return folder_of(tmp_path, TEXTS[:8])


def test_embed_says_what_was_done_and_goes_on(folder, tmp_path, run):
    status, out, err = run("embed", "--over", folder, "-o", tmp_path / "out", "--part", 3)
    assert (status, err) == (0, "")
    assert "8 texts of 2 files" in out
    assert "1 empty line left out" in out
    status, out, _ = run("embed", "--over", folder, "-o", tmp_path / "out", "--part", 3)
    assert "0 texts of 2 files" in out
    assert "8 were done before" in out
    assert [row["text"] for row in rows_of(tmp_path / "out")] == TEXTS[:8]


def test_bad_rows_are_counted_and_can_be_mended(folder, tmp_path, run, refused):
    (folder / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n{"text": "b"}\n{"text": 5.5}\n')
    (folder / "cut.json").write_text('[{"text": "c"}, {"text":')
    arguments = ("embed", "--over", folder, "-o", tmp_path / "out")
    status, out, _ = run(*arguments)
    assert status == 0
    assert "11 texts of 4 files" in out
    assert "2 rows set aside, with the reasons in" in out
    assert "1 file cannot be read to the end, and the rest is not in the output" in " ".join(
        out.split()
    )
    (folder / "bad.jsonl").write_text('{"text": "a"}\n{"text": "m"}\n{"text": "b"}\n')
    assert "--overwrite replaces the parts that differ" in refused(*arguments)
    status, out, _ = run(*arguments, "--overwrite", "--json")
    told = json.loads(out)
    assert (told["texts"], told["of_an_earlier_run"]) == (12, 9)
    assert (told["set_aside"], told["files_cut"]) == (0, 1)


def test_what_may_not_be_meant_is_said(folder, tmp_path, run):
    (folder / "c.csv").write_text('text,n\n"Hello,1\nBye,2\nWorld",3\n')
    _, _, err = run("embed", "--over", folder, "-o", tmp_path / "out")
    assert "1 row has lines within quotes that look like rows" in err


def test_classify_labels_each_text(folder, tmp_path, run):
    status, out, _ = run("classify", "--over", folder, "-o", tmp_path / "out", "--json")
    assert (status, json.loads(out)["texts"]) == (0, 8)
    labels = [row["label"] for row in rows_of(tmp_path / "out")]
    _, alone, _ = run("classify", *TEXTS[:8], "--json")
    assert labels == [item["label"] for item in json.loads(alone)["items"]]


def test_heads_are_shown_with_where_they_differ(tmp_path, run):
    texts = [*TEXTS[:9], "aha aha aha aha aha aha"]
    folder = folder_of(tmp_path, texts)
    arguments = ("heads", "--over", folder, "-o", tmp_path / "out")
    status, out, _ = run(*arguments)
    assert status == 0
    for part in ("24 heads over 10 documents", "What the heads do", "unlike themselves", "b.csv:6"):
        assert part in out, part
    status, out, _ = run(*arguments, "--json")
    found = json.loads(out)
    assert found["documents"] == 10
    low, high = found["heads"][0]["measures"]["entropy"]["interval"]
    assert low < found["heads"][0]["measures"]["entropy"]["mean"] < high
    assert found["unlike"][0]["line"] == 6


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["embed", "--over", "{0}"], "--over needs --output, a new directory"),
        (["embed", "a text", "--over", "{0}", "-o", "out"], "TEXT does not go with --over"),
        (["embed", "a text", "--workers", "2"], "--workers needs --over, a folder of files"),
        (["translate", "--align", "--over", "{0}", "-o", "out"], "--align does not go with --over"),
        (["embed", "--over", "{0}", "-o", "{0}/out"], "is within"),
        (["embed", "--over", "{0}", "-o", "out", "--workers", "0"], "workers"),
        (["embed", "--over", "nowhere", "-o", "out"], "'nowhere' is not a directory"),
        (["heads"], "give a recording that `pellucid watch --save` wrote, or --over"),
        (["heads", "--max-tokens", "5"], "--max-tokens goes with --over"),
        (["heads", "--overwrite"], "--overwrite goes with --over"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, complaint, folder, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert complaint in refused(*(one.format(folder) for one in arguments))
    assert not (tmp_path / "out").exists()

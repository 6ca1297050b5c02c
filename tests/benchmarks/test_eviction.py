"""The benchmark of eviction, on a few tokens of one layer of the packaged decoder."""

import json

import pytest

from benchmarks import eviction

FEW = ["--model", "decoder", "--layers", "0", "--steps", "0.6", "--budgets", "0.25", "0.5"]


def test_policies_are_between_keys_at_random_and_the_best_possible(tmp_path, capsys) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "rows.json"
    text.write_text("In the beginning was the word, and the word was read. " * 20)
    eviction.main([*FEW, "--tokens", "71", "--texts", "2", "--file", str(text), "--json", str(out)])
    facts = json.loads(out.read_text())
    assert facts["model"] == "Pellucid's decoder"
    rows = facts["rows"]
    policies = {row["policy"] for row in rows}
    assert policies == {
        "StreamingLLM", "H2O", "SnapKV", "expected attention", "best possible",
    }  # fmt: skip
    assert len(rows) == 2 * 5 * 2 * 4  # parts, policies, budgets, heads
    assert {(row["tokens"], row["step"], row["layer"]) for row in rows} == {(71, 43, 0)}
    best = {
        (x["part"], x["budget"], x["head"]): x["recall"] for x in rows if x["policy"][:4] == "best"
    }
    assert all(x["recall"] <= best[x["part"], x["budget"], x["head"]] + 1e-6 for x in rows)
    printed = capsys.readouterr().out
    assert "71 tokens of text.txt (2 parts), after 60% of them" in printed
    lines = [line for line in printed.splitlines() if "±" in line]
    assert len(lines) == 5
    assert "best possible" in lines[0]
    assert "keys at random" in printed


def test_it_says_what_is_wrong(tmp_path) -> None:
    with pytest.raises(SystemExit, match="Pellucid's decoder has 256 positions, not 300"):
        eviction.main([*FEW, "--tokens", "300"])
    with pytest.raises(SystemExit, match="No such file"):
        eviction.main([*FEW, "--file", str(tmp_path / "none")])
    short = tmp_path / "short.txt"
    short.write_text("Few words.")
    with pytest.raises(SystemExit, match=r"the text has \d tokens, fewer than 3 parts of 100"):
        eviction.main([*FEW, "--tokens", "100", "--file", str(short)])

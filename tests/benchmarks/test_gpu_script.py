"""Each line of the script for a GPU runs without one, so that it runs there at the first try."""

import json

import pytest
import torch

from benchmarks import gpu


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_every_row_comes_and_is_written_down(monkeypatch, tmp_path, capsys) -> None:
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("kernels are not run as Python where there is a GPU")
    empty = tmp_path / "test_nothing.py"
    empty.write_text("")
    monkeypatch.setattr(gpu, "TESTS", ("-c", str(tmp_path / "none.ini"), str(empty)))
    (tmp_path / "none.ini").write_text("[pytest]\nmarkers = gpu: needs one\n")
    out = tmp_path / "rows.jsonl"
    gpu.main(["--tiny", "--out", str(out)])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines[0]["minutes"] == 11.5
    assert lines[1]["tests"] == 5, "no test there"
    assert not [line for line in lines if "failed" in line or "left out" in line]
    settings = {(line["figure"], line["setting"].split(",")[0]) for line in lines[2:]}
    for tokens in (33, 47):
        for kind in ("full", "causal"):
            for name in ("attention()", "received()", "entropy()", "top(8)", "statistics(top=8)"):
                assert (name, f"n = {tokens} {kind}") in settings
    peers = {figure for figure, _ in settings if " over " in figure}
    assert len(peers) == 3
    assert "watch()" in capsys.readouterr().out


def test_what_fails_or_has_no_time_left_is_said_and_ends_nothing(monkeypatch, tmp_path) -> None:
    def broken(run, tokens, causal):
        raise RuntimeError("no such kernel")
        yield

    monkeypatch.setattr(gpu, "table", broken)
    out = tmp_path / "rows.jsonl"
    gpu.main(["--tiny", "--no-tests", "--minutes", "0", "--out", str(out)])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert all("left out" in line for line in lines[1:])
    assert len(lines) > 8
    bench = gpu.Bench(
        device=torch.device("cpu"), dtype=torch.float32, sizes=(33,), quick=True, only=""
    )
    run = gpu.Run(bench, gpu.TINY, out, deadline=1e12)
    run.attempt("a table", lambda: gpu.table(run, 33, True))
    assert json.loads(out.read_text().splitlines()[-1]) == {
        "failed": "a table: RuntimeError: no such kernel"
    }


def test_without_a_gpu_it_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit, match="needs a GPU"):
        gpu.main([])

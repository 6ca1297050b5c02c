"""A recording is a mapping from names to weights, and goes where other things go."""

import json
import sys
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from urllib.request import urlopen

import pytest
import torch

import pellucid
from pellucid import lens
from pellucid.errors import ArgumentError, ExistsError, MissingExtraError, TypeMismatchError
from pellucid.lens import Recording
from pellucid.lens.pieces import Pieces
from pellucid.models import Config, Decoder, EncoderDecoder

SIZES = {"vocabulary": 101, "width": 30, "layers": 2, "heads": 5, "hidden": 37}


@pytest.fixture(scope="module")
def seen() -> Recording:
    """Two passes over one model: every module twice."""
    torch.manual_seed(2)
    model = Decoder(Config(kind="decoder", **SIZES)).eval()
    with pellucid.watch(model, values=True) as seen:
        for tokens in (11, 7):
            model(torch.randint(101, (2, tokens)))
    return seen


@pytest.fixture(scope="module")
def both() -> Recording:
    torch.manual_seed(3)
    model = EncoderDecoder(Config(kind="encoder-decoder", **SIZES)).eval()
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(torch.randint(101, (1, 11)), torch.randint(101, (1, 7)))
    return seen


def test_the_mapping_agrees_with_itself(seen: Recording) -> None:
    assert isinstance(seen, Mapping)
    names = [f"decoder.blocks.{layer}.attention" for layer in range(2)]
    assert list(seen) == list(seen.keys()) == seen.names == names
    assert len(seen) == 2
    assert len(seen.records) == 4
    for name, weights in seen.items():
        assert name in seen
        assert seen[name] is weights is seen.get(name)
        assert weights.shape[-1] == 7  # of the latest call
    assert [weights.shape for weights in seen.values()] == [(2, 5, 7, 7)] * 2
    assert "decoder" not in seen
    assert seen.get("decoder") is None
    assert seen == seen
    assert {seen: 1}[seen] == 1
    assert dict(seen).keys() == set(names)


def test_a_stream_that_is_no_prompt_s_is_not_in_the_mapping(seen: Recording) -> None:
    other = Recording("of guidance", [replace(seen.records[0], stream=1)])
    assert (len(other), list(other), len(other.records)) == (0, [], 1)
    assert other.names[0] not in other


def test_names_answer_as_records_for_one_version(seen: Recording) -> None:
    for name in seen:
        with pytest.warns(DeprecationWarning, match=r"use recording\.records") as told:
            weights = name.weights  # type: ignore[attr-defined]
        assert told[0].filename == __file__
        assert weights is seen[name]
        assert copy(name) == name
    with pytest.raises(AttributeError, match="wieghts"):
        name.wieghts  # type: ignore[attr-defined]  # noqa: B018


def test_a_recording_on_another_device_is_a_copy(seen: Recording, both: Recording) -> None:
    padded = Recording("padded", both.records)
    for of in (seen, padded):
        moved = of.to("meta")
        assert moved.names == of.names
        assert all(record.queries.tensor.is_meta for record in moved.records)
        assert all(record.weights.device.type == "meta" for record in moved.records)
    again = seen.to("cpu")
    for record, other in zip(seen.records, again.records, strict=True):
        assert torch.equal(record.weights.dense(), other.weights.dense())
        assert torch.equal(record.value, other.value)


def test_bias_that_is_expanded_stays_so(seen: Recording) -> None:
    wide = torch.zeros(1, 1, 1, 7).expand(1, 5, 7, 7)
    record = replace(seen.records[-1], biases=[Pieces(wide)], _weights=None)
    assert record.to("cpu").biases[0].tensor.stride()[1:3] == (0, 0)


def test_records_do_where_recordings_do(seen: Recording, both: Recording) -> None:
    record = seen.records[-1]
    whole = lens.heads(seen)
    assert [row.entropy for row in lens.heads(record)] == [row.entropy for row in whole][5:]
    assert len(lens.heads(seen.records[2:])) == 10
    assert torch.equal(lens.rollout(record), lens.rollout([record]))
    cross = [one for one in both.records if one.is_cross]
    whole = lens.align(both, layers=[one.name for one in cross[-1:]])
    assert torch.equal(lens.align(cross[-1]).weights, whole.weights)
    for given in ("seen", 7, [seen]):
        with pytest.raises(TypeMismatchError, match="must be a Recording"):
            lens.heads(given)  # type: ignore[arg-type]


def test_recordings_do_where_records_do(seen: Recording) -> None:
    latest = {record.name: record for record in seen.latest()}
    with torch.no_grad():
        for ask in (lens.attribution, lens.h2o_scores, lambda x: lens.snapkv_scores(x, window=3)):
            found = ask(seen)
            assert found.keys() == latest.keys()
            for name, record in latest.items():
                own = ask(record)
                pair = [getattr(one, "norms", one) for one in (found[name], own)]
                assert torch.equal(*pair)
    with pytest.raises(ArgumentError, match="that of one record"):
        lens.attribution(seen, torch.zeros(3, 3))  # type: ignore[call-overload]


def test_projections_of_a_recording() -> None:
    model = Decoder(Config(kind="decoder", **SIZES)).eval()
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(torch.randint(101, (1, 7)))
    found = lens.output_projection(model, seen)
    assert found.keys() == set(seen)
    for name, matrix in found.items():
        assert torch.equal(matrix, lens.output_projection(model, name))


def test_heads_go_to_arrow_with_null_for_what_is_not_known(seen: Recording) -> None:
    table = seen.to_arrow()
    rows = lens.heads(seen).to_dicts()
    assert table.to_pylist() == rows
    assert str(table.schema.field("entropy").type) == "double"
    assert rows[0]["punctuation"] is None  # without a tokenizer


def test_heads_go_to_pandas(seen: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = ModuleType("pandas")
    pandas.DataFrame = lambda data, columns: SimpleNamespace(data=data, columns=columns)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    table = seen.to_pandas()
    assert list(table.data) == table.columns
    assert table.data["head"] == [0, 1, 2, 3, 4] * 2


@pytest.mark.parametrize(("module", "line"), [("pandas", "pandas"), ("pyarrow", "pellucid")])
def test_what_is_not_installed_is_said(
    seen: Recording, module: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    ask = seen.to_pandas if module == "pandas" else seen.to_arrow
    with pytest.raises(MissingExtraError, match=f"needs {module}: pip install .*{line}"):
        ask()


def test_a_page_is_exported_and_replaces_nothing_unasked(seen: Recording, tmp_path) -> None:
    page = tmp_path / "page.html"
    seen.export(page, title="two passes", heads=[0])
    assert "<title>two passes" in page.read_text(encoding="utf-8")
    with pytest.raises(ExistsError, match="overwrite=True"):
        seen.export(page)
    seen.export(page, overwrite=True)
    assert "<title>two passes" not in page.read_text(encoding="utf-8")
    with pytest.raises(ArgumentError, match=r"ends in \.pdf"):
        seen.export(tmp_path / "page.pdf")


def test_the_page_is_shown_beside_the_program(seen: Recording) -> None:
    with seen.view(browser=False) as page:
        with urlopen(f"{page.address}about", timeout=60) as answer:
            about = json.load(answer)
        assert len(about["layers"]) == 2
        assert page.address in repr(page)
    with pytest.raises(OSError, match="refused"):
        urlopen(f"{page.address}about", timeout=60)

"""Weights from elsewhere, of `output_attentions=True` or any arrays, are a recording too."""

import numpy as np
import pytest
import torch
import transformers
from tests.lens.families import LAYERS, build, some_ids

import pellucid
from pellucid import Recording
from pellucid.errors import ArgumentError, PellucidError, ShapeError, TypeMismatchError
from pellucid.lens import heads, rollout
from pellucid.viewer.catalogue import Catalogue, Volume

BATCH, HEADS, QUERIES, KEYS = 2, 3, 5, 7
NEAR = {"atol": 1e-6, "rtol": 1e-5}


def weights(queries=QUERIES, keys=QUERIES, batch=BATCH, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, HEADS, queries, keys, generator=generator).mul(2).softmax(-1)


def words(count, batch=None):
    row = [f"w{number % 3}" for number in range(count)]
    return row if batch is None else [[f"{word}-{item}" for word in row] for item in range(batch)]


def assert_same(record, expected):
    assert record.kept == "weights"
    assert record.shape == expected.shape
    torch.testing.assert_close(record.weights.dense(), expected, **NEAR)
    torch.testing.assert_close(record.weights[0, 1, 2], expected[0, 1, 2], **NEAR)


# Outputs of models.


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama, grouped heads"])
def test_an_output_says_what_a_watch_says(name):
    model, ids = build(name, "eager"), some_ids()
    with torch.no_grad(), pellucid.watch(model) as watched:
        output = model(ids, output_attentions=True)
    seen = Recording.from_attentions(output, tokens=ids)
    assert seen.names == [f"layers.{layer}.attention" for layer in range(LAYERS)]
    for record, own in zip(seen.records, watched.records, strict=True):
        torch.testing.assert_close(record.weights.dense(), own.weights.dense(), **NEAR)
        assert torch.equal(record.query_ids, ids)
        assert torch.equal(record.key_ids, ids)
        assert not record.is_cross


@pytest.mark.parametrize("way", ["an output", "a dict", "a tuple"])
def test_an_encoder_decoder(way):
    model, ids, target = build("t5", "eager"), some_ids(), some_ids(7)
    with torch.no_grad():
        output = model(ids, decoder_input_ids=target, output_attentions=True)
    given = output if way == "an output" else dict(output)
    if way == "a tuple":
        seen = Recording.from_attentions(output.decoder_attentions, tokens=target)
        assert len(seen.records) == LAYERS
        return
    seen = Recording.from_attentions(given, tokens=target, source_tokens=ids)
    assert len(seen.records) == 3 * LAYERS
    cross = seen.record("decoder.layers.1.cross_attn")
    assert cross.is_cross
    assert torch.equal(cross.query_ids, target)
    assert torch.equal(cross.key_ids, ids)
    assert_same(cross, output.cross_attentions[1])
    assert torch.equal(seen.record("encoder.layers.0.self_attn").key_ids, ids)
    assert torch.equal(seen.record("decoder.layers.0.self_attn").key_ids, target)


def test_a_generation():
    """Steps are joined: zeros for the keys that were not there yet."""
    model, ids = build("llama, grouped heads", "eager", generating=True), some_ids()
    given = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    output = model.generate(ids, output_attentions=True, return_dict_in_generate=True, **given)
    with torch.no_grad():
        own = model(output.sequences[:, :-1], output_attentions=True).attentions
    seen = Recording.from_attentions(output, tokens=output.sequences)
    assert len(seen.records) == LAYERS
    for record, expected in zip(seen.records, own, strict=True):
        torch.testing.assert_close(record.weights.dense(), expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(record.key_ids, output.sequences[:, :-1])


def test_a_generation_of_an_encoder_decoder():
    model, ids = build("t5", "eager", generating=True), some_ids()
    given = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    output = model.generate(ids, output_attentions=True, return_dict_in_generate=True, **given)
    seen = Recording.from_attentions(output, tokens=output.sequences, source_tokens=ids)
    shapes = {name: tuple(seen[name].shape[-2:]) for name in seen.names}
    assert shapes["encoder.layers.0.self_attn"] == (11, 11)
    assert shapes["decoder.layers.0.self_attn"] == (5, 5)
    assert shapes["decoder.layers.1.cross_attn"] == (5, 11)


def test_layers_that_give_no_weights_are_left_out():
    """As those of models in which only some layers attend."""
    seen = Recording.from_attentions([weights(), None, weights(seed=5)])
    assert seen.names == ["layers.0.attention", "layers.2.attention"]


# Arrays.

KINDS = {
    "torch": lambda x: x,
    "NumPy": lambda x: x.numpy(),
    "lists": lambda x: x.tolist(),
    "float64": lambda x: x.double(),
    "half": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "with a graph": lambda x: x.clone().requires_grad_(),
    "not contiguous": lambda x: x.mT.contiguous().mT,
    "one item": lambda x: x[0],
}


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_every_kind(kind):
    given = KINDS[kind](weights())
    seen = Recording.from_attentions([given, given])
    expected = torch.as_tensor(np.asarray(given) if kind == "lists" else given)
    expected = expected[None] if expected.ndim == 3 else expected
    for record in seen.records:
        actual = record.weights.dense()
        assert actual.shape == expected.shape
        torch.testing.assert_close(actual.double(), expected.double(), atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("outer", [list, tuple])
def test_lists_and_tuples_of_layers(outer):
    given = [weights(seed=seed) for seed in range(3)]
    seen = Recording.from_attentions(outer(given))
    for record, expected in zip(seen.records, given, strict=True):
        assert_same(record, expected)


def test_an_array_that_is_written_over_later():
    """Nobody counts what numpy writes."""
    expected = weights()
    array = expected.numpy().copy()
    recording = Recording.from_attentions([array])
    array[:] = 0
    assert_same(recording.records[0], expected)


def test_names_of_ones_own():
    given = {"block.0": weights(), "block.1.cross": weights(QUERIES, KEYS)}
    seen = Recording.from_attentions(
        given, tokens=words(QUERIES), source_tokens=words(KEYS), model="mine"
    )
    assert seen.names == list(given)
    assert repr(seen).startswith("mine: 2 attention calls recorded")
    assert seen.record("block.1.cross").is_cross
    assert_same(seen.record("block.1.cross"), given["block.1.cross"])


def test_an_array_of_all_layers():
    """(layers, batch, heads, n, n), as one stacks them to save them."""
    stacked = torch.stack([weights(seed=seed) for seed in range(3)])
    for given in (stacked, stacked.numpy()):
        try:
            seen = Recording.from_attentions(given)
        except PellucidError:
            continue
        assert len(seen.records) == 3
        for record, expected in zip(seen.records, stacked, strict=True):
            assert_same(record, expected)


# Tokens.


def test_tokens_as_texts():
    seen = Recording.from_attentions([weights()], tokens=words(QUERIES))
    (record,) = seen.records
    assert record.query_ids.shape == (BATCH, QUERIES)
    assert seen.strings(record.key_ids[1]) == words(QUERIES)


def test_tokens_of_each_item():
    given = words(QUERIES, BATCH)
    seen = Recording.from_attentions([weights()], tokens=given)
    (record,) = seen.records
    assert [seen.strings(ids) for ids in record.query_ids] == given


def test_texts_of_both_sides_are_told_apart():
    seen = Recording.from_attentions(
        {"cross": weights(QUERIES, KEYS)},
        tokens=words(QUERIES),
        source_tokens=[f"s{number}" for number in range(KEYS)],
    )
    (record,) = seen.records
    assert seen.strings(record.query_ids[0]) == words(QUERIES)
    assert seen.strings(record.key_ids[0]) == [f"s{number}" for number in range(KEYS)]


def test_ids_are_spelled_by_a_tokenizer():
    class Tokenizer:
        def convert_ids_to_tokens(self, ids):
            return [f"t{number}" for number in ids]

    ids = torch.arange(11, 11 + QUERIES)
    seen = Recording.from_attentions([weights()], tokens=ids, tokenizer=Tokenizer())
    assert seen.strings(seen.records[0].key_ids[0]) == [f"t{number}" for number in ids]


# What is refused.

one = weights()
WRONG = {
    "nothing": ((), ArgumentError, "output_attentions"),
    "an output without": (
        transformers.modeling_outputs.BaseModelOutput(last_hidden_state=one[:, 0] - 0.5),
        (ArgumentError, TypeMismatchError),
        "output_attentions",
    ),
    "a number": (7, TypeMismatchError, "list of arrays"),
    "a text": ("abc", TypeMismatchError, "array"),
    "texts": (["abc"], TypeMismatchError, "array"),
    "integers": ([torch.ones(HEADS, QUERIES, KEYS, dtype=torch.long)], TypeMismatchError, "float"),
    "two dimensions": ([one[0, 0]], ShapeError, "queries, "),
    "five dimensions": ([one[None, None]], ShapeError, "queries, "),
    "no heads": ([one[:, :0]], ShapeError, "shape"),
    "below 0": ([-one], ArgumentError, "none is negative"),
    "scores": ([one.log()], ArgumentError, "after the softmax"),
    "NaN": ([one * torch.nan], ArgumentError, "nan"),
    "infinite": ([one / 0], ArgumentError, "inf"),
    "ragged": ([[[0.5], [0.5, 0.5]]], PellucidError, "layers.0.attention"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_weights_is_refused(what):
    given, error, message = WRONG[what]
    with pytest.raises(error, match=message):
        Recording.from_attentions(given)


WRONG_TOKENS = {
    "too few": (words(QUERIES - 1), ShapeError),
    "of another batch": (words(QUERIES, 3), ShapeError),
    "ragged": ([["a"] * QUERIES, ["a"]], ShapeError),
    "numbers": ([1.5] * QUERIES, TypeMismatchError),
    "floats": (torch.ones(QUERIES), TypeMismatchError),
    "three dimensions": (torch.ones(1, 1, QUERIES, dtype=torch.long), TypeMismatchError),
    "a text": ("abcde", TypeMismatchError),
    "nothing": ([], PellucidError),
}


@pytest.mark.parametrize("what", WRONG_TOKENS)
def test_tokens_that_do_not_fit_are_refused(what):
    tokens, error = WRONG_TOKENS[what]
    with pytest.raises(error, match="tokens"):
        Recording.from_attentions([one], tokens=tokens)


# What recordings are good for.


@pytest.fixture(name="both")
def fixture_both():
    """The same attention, watched and taken from the output."""
    model, ids = build("bert", "eager"), some_ids()
    with torch.no_grad(), pellucid.watch(model) as watched:
        output = model(ids, output_attentions=True)
    return watched, Recording.from_attentions(output, tokens=ids)


def test_heads_are_measured_alike(both):
    rows, others = (heads(seen) for seen in both)
    assert len(rows) == len(others)
    assert repr(rows).replace("encoder.layer", "").count("\n") == repr(others).count("\n")


def test_rollout_is_the_same(both):
    one, other = (rollout(seen) for seen in both)
    for row in (0, 5, 10):
        torch.testing.assert_close(one[0, row], other[0, row], **NEAR)


def test_it_is_saved_and_loaded(both, tmp_path):
    _, seen = both
    seen.save(tmp_path / "x.safetensors")
    again = Recording.load(tmp_path / "x.safetensors")
    assert repr(again) == repr(seen)
    for record, other in zip(seen.records, again.records, strict=True):
        assert_same(other, record.weights.dense())
        assert torch.equal(record.key_ids, other.key_ids)
        assert record.proof == other.proof


def test_texts_are_saved(tmp_path):
    seen = Recording.from_attentions([weights()], tokens=words(QUERIES))
    seen.save(tmp_path / "x.safetensors")
    again = Recording.load(tmp_path / "x.safetensors")
    assert again.strings(again.records[0].key_ids[0]) == words(QUERIES)


def test_the_page_shows_it(both):
    watched, seen = both
    catalogue = Catalogue(Volume(watched, "watched"), Volume(seen, "given"))
    assert len(catalogue.layers) == 2 * LAYERS
    for layer, other in zip(catalogue.layers[:LAYERS], catalogue.layers[LAYERS:], strict=True):
        assert (layer.heads, layer.queries, layer.keys) == (other.heads, other.queries, other.keys)
        assert (layer.is_cross, layer.is_causal) == (other.is_cross, other.is_causal)


def test_what_query_and_key_are_needed_for_is_refused(both):
    record = both[1].records[0]
    for part in ("query", "key"):
        with pytest.raises(ArgumentError, match="keeps the weights"):
            getattr(record, part)
    with pytest.raises(PellucidError):
        pellucid.lens.attribution(record)


def test_the_table(both):
    lines = repr(both[1]).splitlines()
    assert lines[0] == f"weights from elsewhere: {LAYERS} attention calls recorded"
    assert "in the weights" in lines[2]
    assert lines[2].split()[:4] == ["layers.0.attention", "3", "11", "11"]

"""Caches that are edited, models that take turns, tensors that change under a watch."""

import gc
import json
import threading
import weakref

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from tests.lens.budget import assert_same_weights
from tests.lens.families import LAYERS, VOCABULARY, build, some_ids
from torch import nn

import pellucid
from pellucid.errors import ArgumentError, FileError

LLAMA, PLACE = "llama, grouped heads", "model.layers.0.self_attn"
PROMPT = 7


def assert_replays(record):
    """What was recorded gives what the model got, every row."""
    value = record.value.repeat_interleave(record.shape[1] // record.value.shape[1], 1)
    near = {"atol": 3e-6 * float(value.abs().max()), "rtol": 1e-4}
    torch.testing.assert_close(record.weights @ value, record.context, **near)


class Attend(nn.Module):
    """What calls the fused kernel and nothing else."""

    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_the_fast_path_is_recorded_by_a_thread_that_has_recorded_nothing_yet():
    layer = nn.TransformerEncoderLayer(18, 2, 23, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    found = []

    def work():
        with torch.no_grad(), pellucid.watch(model) as seen:
            model(torch.randn(2, 7, 18))
        found.append(len(seen.records))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [2]


def test_a_logsumexp_that_nobody_took_is_no_other_calls():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = Attend()
            layer = nn.TransformerEncoderLayer(18, 2, 23, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

        def forward(self, x, fails):
            try:
                self.attention(torch.randn(2, 2, 7, 5))
                if fails:
                    nn.functional.scaled_dot_product_attention(1, 2, 3)
            except TypeError:
                pass
            return self.encoder(x)

    model = Both().eval()
    with torch.no_grad():
        for fails in (False, True):
            with pellucid.watch(model) as seen:
                model(torch.randn(2, 7, 18), fails)
            rows = seen["encoder.layers.0.self_attn"].dense().sum(-1)
            torch.testing.assert_close(rows, torch.ones_like(rows))


@pytest.mark.parametrize("padded", [False, True])
def test_a_prompt_that_sees_ahead_does_not_see_what_is_written_later(padded):
    """As of PaliGemma: the prompt in both directions, and what follows causally."""
    model, ids = build(LLAMA, "sdpa", generating=True), some_ids(PROMPT)
    shown = torch.ones(2, 1, PROMPT + 3, PROMPT + 3, dtype=torch.bool).tril()
    shown[:, :, :PROMPT, :PROMPT] = True
    if padded:
        shown[1, :, :, :2] = False
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        cache = model(ids, attention_mask=shown[..., :PROMPT, :PROMPT]).past_key_values
        for at in range(PROMPT, PROMPT + 3):
            model(
                ids[:, :1], attention_mask=shown[..., at : at + 1, : at + 1], past_key_values=cache
            )
    assert len(seen.records) == LAYERS
    weights = seen[PLACE].dense()
    assert torch.equal((weights > 0).any(1), shown[:, 0])
    assert_replays(seen.record(PLACE))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("edit", ["evicts", "overwrites"])
def test_a_cache_whose_keys_are_edited(edit, implementation):
    model, ids = build(LLAMA, implementation, generating=True), some_ids(PROMPT + 2)
    cache = transformers.DynamicCache()
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        model(ids[:, :PROMPT], past_key_values=cache)
        for layer in cache.layers:
            if edit == "evicts":
                kept = torch.tensor([0, 1, 5, 6])
                layer.keys, layer.values = layer.keys[..., kept, :], layer.values[..., kept, :]
            else:
                layer.keys[..., :3, :] = 0
        for at in (PROMPT, PROMPT + 1):
            model(ids[:, at : at + 1], past_key_values=cache, position_ids=torch.tensor([[at]]))
    assert [record.shape[-2] for record in seen.records] == [PROMPT] * LAYERS + [2] * LAYERS
    for record in seen.records:
        assert_replays(record)


def test_a_cache_that_is_cut_to_before_the_watch():
    model, ids = build("mistral, a window", "sdpa", generating=True), some_ids()
    cache = transformers.DynamicCache()
    with torch.no_grad():
        model(ids[:, :6], past_key_values=cache)
        with pellucid.watch(model, values=True) as seen:
            model(ids[:, 6:9], past_key_values=cache)
            cache.crop(-5)
            model(ids[:, 4:8], past_key_values=cache)
            model(ids[:, 8:9], past_key_values=cache)
    assert [record.shape[-2:] for record in seen.records] == [(3, 9)] * LAYERS + [(5, 9)] * LAYERS
    for record in seen.records:
        assert_replays(record)


def test_generations_that_take_turns():
    model, ids = build(LLAMA, "sdpa", generating=True), some_ids()
    caches = [transformers.DynamicCache() for _ in range(2)]
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        for at in range(5):
            for number, cache in enumerate(caches):
                model(ids[:, at + number : at + number + 1], past_key_values=cache)
    assert [record.shape[-2:] for record in seen.records] == [(5, 5)] * (2 * LAYERS)
    for record in seen.records:
        assert_replays(record)


def test_keys_of_a_model_that_nobody_watches():
    """They are no other model's, and nothing keeps their cache."""
    model = transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=33,
            num_attention_heads=3,
            num_hidden_layers=1,
            intermediate_size=37,
            image_size=10,
            patch_size=5,
        )
    ).eval()
    other, image = build(LLAMA, "sdpa", generating=True), torch.randn(2, 3, 10, 10)
    cache = transformers.DynamicCache()
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(image)
        other(some_ids(), past_key_values=cache)
        model(image)
    assert [record.shape for record in seen.records] == [(2, 3, 5, 5)] * 2
    kept = weakref.ref(cache)
    del cache
    gc.collect()
    assert kept() is None


def test_what_is_changed_in_place_later_is_refused():
    x = torch.randn(2, 3, 7, 5)
    with torch.no_grad(), pellucid.watch(Attend()) as seen:
        seen._model(x)
        x += 1
    with pytest.raises(ArgumentError, match="changed in place"):
        seen[""]


def test_inference_mode_keeps_copies_of_what_is_written_in_place():
    class Buffered(nn.Module):
        """A cache of its own, which is written in place and read whole."""

        def forward(self, buffer, at, x):
            buffer[:, :, at] = x
            return nn.functional.scaled_dot_product_attention(x.unsqueeze(2), buffer, buffer)

    model = Buffered()
    with torch.inference_mode(), pellucid.watch(model, values=True) as seen:
        buffer = torch.zeros(2, 3, 5, 7)
        for at in range(5):
            model(buffer, at, torch.randn(2, 3, 7))
    for record in seen.records:
        assert_replays(record)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of torch, watched or not
def test_a_transform_of_torch_func_goes_on_as_without_a_watch():
    model, x = Attend(), torch.randn(5, 2, 3, 7, 11)
    with torch.no_grad():
        plain = torch.func.vmap(model)(x)
        with pellucid.watch(model) as seen:
            watched = torch.func.vmap(model)(x)
    assert torch.equal(plain, watched)
    assert len(seen.records) == 0


def test_a_call_without_heads_goes_on_as_without_a_watch():
    with torch.no_grad(), pellucid.watch(Attend()) as seen:
        assert seen._model(torch.ones(2, 3, 5, 0)).shape == (2, 3, 5, 0)


def test_a_call_with_dropout_proves_nothing():
    """What does more than attention is refused once it shows."""

    class More(Attend):
        def forward(self, x):
            drop = 0.1 if self.training else 0.0
            context = nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=drop)
            return context

    model = More().train()
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(torch.randn(2, 3, 7, 5))
        model.eval()
        model(torch.randn(2, 3, 7, 5))
    dropped, proven = (record.proof for record in seen.records)
    assert (dropped.rows, dropped.reason) == (0, "dropout is random")
    assert (proven.rows, proven.reason) == (3, "")


def test_a_recording_of_two_passes_is_saved(tmp_path):
    """What they share, sinks and tied keys, is written once."""
    model = build("gpt-oss, sinks", "eager")
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(some_ids())
        model(some_ids(5))
    seen.save(tmp_path / "x.safetensors")
    again = pellucid.Recording.load(tmp_path / "x.safetensors")
    for one, other in zip(seen.records, again.records, strict=True):
        assert_same_weights(one, other)


def test_what_a_file_keeps_for_later_questions(tmp_path):
    class Marks:
        all_special_ids = (3, 5)

        def convert_ids_to_tokens(self, ids):
            return [f"w{number}" for number in ids]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(VOCABULARY, 18)
            self.attention = nn.MultiheadAttention(18, 3, batch_first=True)

        def forward(self, ids):
            x = self.tokens(ids)
            return self.attention(x, x, x)[0]

    model, ids = Model(), torch.tensor([[3, 7, 11, 5]])
    with pellucid.watch(model, values=True, tokenizer=Marks()) as seen:
        model(ids)
    seen.save(tmp_path / "x.safetensors")
    again = pellucid.Recording.load(tmp_path / "x.safetensors")
    assert again.special_ids == {3, 5}
    ours, theirs = (pellucid.lens.attribution(one.record("attention")) for one in (seen, again))
    torch.testing.assert_close(ours.norms, theirs.norms, atol=0, rtol=1e-6)
    assert_same_weights(ours, theirs)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", 5),
        ("unseen", {"a": 1}),
        ("vocabulary", {"101": 1}),
        ("latest_queries", -5),
        ("scale", "a"),
        ("mask", {"kind": "Band", "left": "a", "right": 0, "offset": 0}),
        ("mask", {"kind": "Not", "hidden": None}),
        ("name", None),
    ],
)
def test_recordings_that_contradict_themselves_are_refused(part, value, tmp_path):
    path = tmp_path / "x.safetensors"
    with torch.no_grad(), pellucid.watch(build("bert", "sdpa")) as seen:
        seen._model(some_ids())
    seen.save(path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["pellucid"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    (header if part in header else header["records"][0])[part] = value
    save_file(tensors, path, metadata={"pellucid": json.dumps(header)})
    with pytest.raises(FileError, match="contradicts itself"):
        pellucid.Recording.load(path)


def sharing_model(implementation):
    """The last two layers read the keys of the two before."""
    torch.manual_seed(0)
    config = transformers.Gemma3nTextConfig(
        vocab_size=VOCABULARY,
        vocab_size_per_layer_input=VOCABULARY,
        hidden_size=18,
        hidden_size_per_layer_input=7,
        intermediate_size=23,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=6,
        max_position_embeddings=53,
        sliding_window=5,
        layer_types=["sliding_attention", "full_attention"] * 2,
        num_kv_shared_layers=2,
        activation_sparsity_pattern=[0.0] * 4,
        laurel_rank=5,
        altup_num_inputs=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    make = transformers.Gemma3nForCausalLM._from_config
    return make(config, attn_implementation=implementation).eval()


def assert_eager(seen, ids):
    """One record a layer, of the weights that the model's own eager attention has."""
    with torch.no_grad():
        expected = sharing_model("eager")(ids, output_attentions=True, use_cache=False).attentions
    assert len(seen.records) == 4
    for record, own in zip(seen.records, expected, strict=True):
        torch.testing.assert_close(record.weights.dense(), own, atol=2e-6, rtol=1e-4)


def test_layers_that_read_the_keys_of_others():
    """One record a layer, and what two of them read is held once; a crop takes back all alike."""
    model, ids = sharing_model("sdpa"), some_ids()
    cache = transformers.DynamicCache(config=model.config)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(ids[:, :4], past_key_values=cache)
        for at in range(4, len(ids[0])):
            model(ids[:, at : at + 1], past_key_values=cache)
    assert_eager(seen, ids)
    places = [f"model.layers.{layer}.self_attn" for layer in range(4)]
    held = [seen.record(place).keys for place in places]
    assert held[2] is held[0]
    assert held[3] is held[1]


def test_a_crop_of_keys_that_two_layers_read():
    model, ids = sharing_model("sdpa"), some_ids()
    cache, again = transformers.DynamicCache(), torch.cat([ids[:, :3], ids[:, 6:]], 1)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(ids[:, :5], past_key_values=cache)
        cache.crop(-2)
        for at in range(3, len(again[0])):
            model(again[:, at : at + 1], past_key_values=cache)
    assert_eager(seen, again)

"""GGUF files: each quantised format and architecture, and files that are damaged."""

import importlib
import re
import struct
import sys

import numpy as np
import pytest
import torch

import pellucid
from pellucid.errors import ArgumentError, FileError, MissingExtraError
from pellucid.layers.packed import FORMATS
from pellucid.layers.rotary import Rotary
from pellucid.models.checkpoints.gguf_file import GgufFile
from tests.checkpoints import byte_pairs
from tests.models.gguf_files import NAMED, TEMPLATE, tiny, write

gguf = pytest.importorskip("gguf")
ROPE = {"rope_theta": 10_000.0}
IDS = torch.tensor([[3, 17, 5, 301, 23, 11, 2]])


def theirs(path):
    """The model that transformers reads from a file, with the weights of `gguf.dequantize`."""
    import transformers

    transformers.logging.disable_progress_bar()
    with pytest.MonkeyPatch.context() as patch:
        # It asks for accelerate, which it does not use on one CPU.
        patch.setattr(transformers.modeling_utils, "is_accelerate_available", lambda: True)
        return transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        ).eval()


def check_logits(path, model):
    ours = pellucid.load(path)
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS), model(IDS).logits, rtol=1e-5, atol=1e-5)
    return ours


@pytest.mark.parametrize("family", NAMED)
def test_an_architecture_gives_the_logits_of_transformers(family, tmp_path):
    model = tiny(family)
    path = write(tmp_path / "model.gguf", model, tokenizer=byte_pairs())
    ours = check_logits(path, model)
    assert ours.config.stop == (306,)
    assert ours.config.positions == 53


@pytest.mark.parametrize("kind", [form.name for form in FORMATS.values()])
def test_a_format_gives_the_logits_of_transformers(kind, tmp_path):
    is_large = kind.endswith("_K")
    model = tiny("llama", width=256 if is_large else 96, layers=1)
    path = write(tmp_path / "model.gguf", model, kind, tokenizer=byte_pairs())
    ours = check_logits(path, theirs(path))
    assert not torch.equal(ours.decoder.tokens.weight, model.model.embed_tokens.weight)


@pytest.mark.parametrize("kind", [*(form.name for form in FORMATS.values()), "Q3_K", "IQ4_NL"])
def test_numbers_of_a_format_are_those_of_gguf(kind, tmp_path):
    """Exactly: each is one product and one sum in float32."""
    model = tiny("llama", width=256, layers=1)
    path = write(tmp_path / "model.gguf", model, kind)
    file = GgufFile(path)
    for stored in gguf.GGUFReader(path).tensors:
        expected = gguf.dequantize(stored.data, stored.tensor_type)
        assert np.array_equal(file.tensor(stored.name).float().numpy(), expected), stored.name


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_floats_are_read_as_they_are(kind, tmp_path):
    model = tiny("llama", layers=1)
    ours = pellucid.load(write(tmp_path / "model.gguf", model, kind))
    expected = model.model.embed_tokens.weight
    expected = expected.half() if kind == "F16" else expected.bfloat16()
    assert torch.equal(ours.decoder.tokens.weight, expected.float())


def test_experts_are_read_one_by_one_in_any_format(tmp_path):
    """Of a tensor (experts, out, in), with rows of whole numbers."""
    path = write(tmp_path / "model.gguf", tiny("mixtral", layers=1), "Q8_0")
    ours = pellucid.load(path)
    state = ours.state_dict()
    kinds = {"gate": "gates", "up": "ups", "down": "downs"}
    found = 0
    for stored in gguf.GGUFReader(path).tensors:
        if stored.name.endswith("_exps.weight"):
            kind = kinds[stored.name.split("_")[1]]
            expected = torch.tensor(gguf.dequantize(stored.data, stored.tensor_type))
            [name] = [name for name in state if f".{kind}." in name]
            assert torch.equal(state[name], expected)
            found += 1
    assert found == 3
    kept = pellucid.load(path, packed=True)
    with torch.no_grad():
        near = torch.nn.functional.cosine_similarity(kept(IDS), ours(IDS), dim=-1)
    assert near.min() > 0.99


def test_the_scaling_of_llama_3_is_known_by_its_frequencies(tmp_path):
    import transformers

    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    model = tiny("llama", layers=1)
    model.config.rope_parameters = {"rope_theta": 500_000.0, **scaling}
    model = transformers.LlamaForCausalLM(model.config)
    frequencies = Rotary(16, 500_000.0).frequencies
    stretched = Rotary(16, 500_000.0, scaling).frequencies
    path = tmp_path / "model.gguf"
    write(path, model, extra={"rope_freqs.weight": frequencies / stretched})
    ours = pellucid.load(path)
    assert dict(ours.config.rope_scaling) == scaling
    write(path, model, extra={"rope_freqs.weight": frequencies})
    with pytest.raises(FileError, match=r"rope_freqs\.weight is not that of Llama 3"):
        pellucid.load(path)


LINEAR = {
    "the kind and a factor": {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    "a factor alone": {"rope.scaling.factor": 4.0},
    "the old key": {"rope.scale_linear": 4.0},
    "both keys, of which the old one does not count": {
        "rope.scaling.factor": 4.0,
        "rope.scale_linear": 2.0,
    },
}
UNSCALED = {
    "no kind": {"rope.scaling.type": "none", "rope.scaling.factor": 4.0},
    "a factor of 0": {"rope.scaling.type": "linear", "rope.scaling.factor": 0.0},
    "no factor": {"rope.scaling.type": "linear"},
    "what changes nothing": {
        "attention.causal": True,
        "attention.scale": 0.25,
        "attention.value_length": 16,
        "logit_scale": 1.0,
        "rope.freq_base_swa": 10_000.0,
    },
}


@pytest.mark.parametrize("case", [*LINEAR, *UNSCALED])
def test_positions_are_scaled_as_the_metadata_say(case, tmp_path):
    import transformers

    model = tiny("llama", layers=1)
    changed = {f"llama.{key}": value for key, value in (LINEAR | UNSCALED)[case].items()}
    path = write(tmp_path / "model.gguf", model, **changed)
    if case in LINEAR:
        model.config.rope_parameters = {**ROPE, "rope_type": "linear", "factor": 4.0}
        scaled = transformers.LlamaForCausalLM(model.config).eval()
        scaled.load_state_dict(model.state_dict())
        model = scaled
    check_logits(path, model)


def test_a_part_of_a_head_is_turned_with_scaled_positions(tmp_path):
    import transformers

    model = tiny("stablelm")
    path = write(tmp_path / "model.gguf", model, **{"stablelm.rope.scaling.factor": 4.0})
    model.config.rope_parameters |= {"rope_type": "linear", "factor": 4.0}
    scaled = transformers.StableLmForCausalLM(model.config).eval()
    scaled.load_state_dict(model.state_dict())
    check_logits(path, scaled)


def test_gemma_3_has_a_base_of_frequencies_for_its_windows(tmp_path):
    import transformers

    model = tiny("gemma3")
    path = write(tmp_path / "model.gguf", model, **{"gemma3.rope.freq_base_swa": 501.0})
    model.config.rope_parameters["sliding_attention"]["rope_theta"] = 501.0
    other = transformers.Gemma3ForCausalLM(model.config).eval()
    other.load_state_dict(model.state_dict())
    check_logits(path, other)


# Tokenizers ---------------------------------------------------------------------------------------


def test_a_tokenizer_of_bytes_encodes_as_its_original(tmp_path):
    original = byte_pairs()
    model = pellucid.load(
        write(tmp_path / "model.gguf", tiny("llama", layers=1), tokenizer=original)
    )
    for text in ("Write a poem about rain", "  émigré 漢字\n\n12 345's\t🙂"):
        assert model.tokenizer.encode([text]) == [original.encode(text)]
        assert model.tokenizer.decode(original.encode(text)) == text
    assert model.tokenizer.encode(["a<more 7>a"]) == [
        [*original.encode("a"), len(original) + 7, *original.encode("a")]
    ]
    assert model.tokenizer.chat_template == TEMPLATE


def test_names_of_templates_and_of_special_tokens(tmp_path):
    changed = {
        "tokenizer.chat_template": None,
        "tokenizer.chat_template.tool": "t",
        "tokenizer.chat_template.rag": "r",
        "tokenizer.ggml.seperator_token_id": 5,
        "tokenizer.ggml.unknown_token_id": 7,
    }
    path = write(
        tmp_path / "model.gguf", tiny("llama", layers=1), tokenizer=byte_pairs(), **changed
    )
    tokenizer = pellucid.load(path).tokenizer
    assert (tokenizer.chat_template, tokenizer.other_templates) == (None, ("rag", "tool"))
    assert tokenizer.named_tokens["sep_token"] == tokenizer.token(5)
    assert tokenizer.named_tokens["unk_token"] == tokenizer.token(7)


def test_a_tokenizer_of_pieces_merges_by_score(tmp_path):
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "a", "b", "c", "ab", "bc", "▁a", "abc", "▁abc", "▁ab"]
    types = [2, 3, 3] + [6] * 256 + [1] * 10
    scores = [0.0] * 259 + [-9.0, -9.0, -9.0, -9.0, -2.0, -1.0, -3.0, -4.0, -5.0, -6.0]
    changed = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces + [f"<{number}>" for number in range(307 - len(pieces))],
        "tokenizer.ggml.token_type": types + [5] * (307 - len(types)),
        "tokenizer.ggml.scores": scores + [0.0] * (307 - len(scores)),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    path = write(tmp_path / "model.gguf", tiny("llama", layers=1), **changed)
    tokenizer = pellucid.load(path).tokenizer
    # bc merges first, so that ab does not; then a with what has become of it.
    assert tokenizer.encode(["abc é"]) == [[1, pieces.index("▁abc"), 259, 3 + 0xC3, 3 + 0xA9]]
    assert tokenizer.decode(tokenizer.encode(["abc é"])[0]) == "abc é"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"tokenizer.ggml.pre": "martian"}, "splits text as 'martian' does"),
        ({"tokenizer.ggml.model": "bert"}, "is of kind 'bert'"),
        ({"tokenizer.ggml.merges": ["a"]}, "a merge that is not a pair"),
        ({"tokenizer.ggml.token_type": [1]}, "307 tokens, but types of 1"),
        ({"llama.rope.dimension_count": 4}, "only 4 of the 16 numbers"),
        ({"llama.rope.scaling.type": "yarn"}, "scaled by 'yarn'"),
        ({"llama.rope.scaling.factor": -2.0}, "rope.scaling.factor is -2, which is below 0"),
        ({"llama.rope.scaling.factor": float("nan")}, "rope.scaling.factor is nan, not finite"),
        ({"llama.rope.scaling.attn_factor": 2.0}, "attn_factor is 2.0, which is not supported"),
        ({"llama.rope.freq_base_swa": 3.0}, "freq_base_swa differs from rope.freq_base"),
        ({"llama.attention.causal": False}, "attention.causal is False, which is not supported"),
        ({"llama.attention.scale": 0.3}, "attention.scale is 0.3, not 0.25, which is not"),
        ({"llama.attention.value_length": 8}, "value_length is 8, but a head has 16 numbers"),
        ({"llama.attn_logit_softcapping": 5.0}, "attn_logit_softcapping is 5.0, which is not"),
        ({"llama.use_parallel_residual": True}, "use_parallel_residual is True, which is not"),
        ({"llama.expert_count": 4}, r"experts\.\*\.w1 is missing|do not fit"),
        ({"llama.block_count": 3}, "18 tensors do not fit: .* is missing"),
        ({"llama.block_count": None}, "has no 'num_hidden_layers'"),
        ({"llama.attention.head_count": [6, 6]}, "differs between layers"),
        ({"split.count": 3}, "one of 3 parts"),
        ({"general.alignment": 2**20}, "alignment"),
    ],
)
def test_what_is_not_supported_is_named(changed, reason, tmp_path):
    path = write(
        tmp_path / "model.gguf", tiny("llama", layers=1), tokenizer=byte_pairs(), **changed
    )
    with pytest.raises(FileError, match=reason) as refused:
        pellucid.load(path)
    assert "\n" not in str(refused.value)


def test_a_tensor_without_numbers_is_refused(tmp_path):
    path = write(tmp_path / "model.gguf", tiny("llama", layers=1), "Q8_0")
    content = path.read_bytes()
    place = content.index(b"blk.0.attn_q.weight") + len("blk.0.attn_q.weight") + 4
    for number in (0, 1):  # cols, rows
        at = place + 8 * number
        path.write_bytes(content[:at] + bytes(8) + content[at + 8 :])
        with pytest.raises(
            FileError, match=r"its tensor blk\.0\.attn_q\.weight has a dimension of 0"
        ):
            pellucid.load(path)


# Paths --------------------------------------------------------------------------------------------


def test_a_directory_with_a_file_is_that_file(tmp_path):
    path = write(tmp_path / "model.gguf", tiny("llama", layers=1))
    alone, named = pellucid.load(tmp_path), pellucid.load(path)
    assert torch.equal(alone(IDS), named(IDS))
    (tmp_path / "other.gguf").write_bytes(path.read_bytes())
    with pytest.raises(FileError, match=r"several \.gguf files; give one of them: model\.gguf, o"):
        pellucid.load(tmp_path)


def test_another_architecture_is_refused(tmp_path):
    path = write(tmp_path / "model.gguf", tiny("llama", layers=1))
    path.write_bytes(path.read_bytes().replace(b"llama", b"mamba"))
    with pytest.raises(FileError, match="its architecture is 'mamba'; known ones are llama, "):
        pellucid.load(path)


def test_what_only_gguf_reads_says_so(tmp_path, monkeypatch):
    path = write(tmp_path / "model.gguf", tiny("llama", width=256, layers=1), "Q3_K")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pellucid\[gguf\]"):
        pellucid.load(path)


# Damaged files ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    return write(path, tiny("llama", layers=1), "Q8_0", tokenizer=byte_pairs()).read_bytes()


def refused(tmp_path, content):
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    with pytest.raises(FileError) as error:
        pellucid.load(path)
    message = str(error.value)
    assert message.startswith(f"model '{path}' cannot be opened: ")
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))
    return message


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_is_refused(share, content, tmp_path):
    message = refused(tmp_path, content[: int(len(content) * share)])
    assert "cut short" in message


@pytest.mark.parametrize(
    ("at", "number", "reason"),
    [
        (0, struct.pack("<I", 1), "does not begin as GGUF files do"),
        (4, struct.pack("<I", 1), "of GGUF version 1"),
        (4, struct.pack(">I", 3), "big-endian"),
        (8, struct.pack("<Q", 2**40), "says that it has 1,099,511,627,776 tensors"),
        (16, struct.pack("<Q", 2**40), "says that it has 1,099,511,627,776 keys"),
        (24, struct.pack("<Q", 2**40), "has a name of 1,099,511,627,776 bytes"),
    ],
)
def test_a_header_that_lies_is_refused(at, number, reason, content, tmp_path):
    assert reason in refused(tmp_path, content[:at] + number + content[at + len(number) :])


def test_huge_counts_and_offsets_are_refused(content, tmp_path):
    array = struct.pack("<I", 9) + struct.pack("<I", 8)
    at = content.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens")
    assert content[at : at + 8] == array
    huge = content[: at + 8] + struct.pack("<Q", 2**60) + content[at + 16 :]
    assert "arrays of more than" in refused(tmp_path, huge)
    name = b"blk.0.ffn_up.weight"
    at = content.index(name) + len(name) + 4
    for change, reason in (
        (struct.pack("<QQIQ", 96, 160, 8, 2**40), "outside the file"),
        (struct.pack("<QQIQ", 96, 2**30, 8, 0), "outside the file|with at least"),
        (struct.pack("<QQIQ", 2**62, 2**62, 8, 0), "has 2"),
        (struct.pack("<QQIQ", 95, 160, 8, 0), "rows of 95, not in 32s"),
        (struct.pack("<QQIQ", 96, 160, 777, 0), "format 777 of ggml"),
    ):
        assert re.search(reason, refused(tmp_path, content[:at] + change + content[at + 28 :]))


def test_any_damaged_byte_of_the_header_is_survived(content, tmp_path):
    """The file opens, or is refused in one line: nothing else, whichever byte is another."""
    path = tmp_path / "damaged.gguf"
    random, reasons = np.random.default_rng(3), []
    for at in random.integers(0, 6000, 60):
        damaged = bytearray(content)
        damaged[at] = random.integers(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            pellucid.load(path)
        except FileError as error:
            reasons.append(str(error))
    assert not any("\n" in reason for reason in reasons)


# Packed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_packed_weights_give_nearly_the_same_and_step_alike(family, tmp_path):
    """A step over the cache, compiled, is what one pass over all tokens gives."""
    path = write(tmp_path / "model.gguf", tiny(family), "Q8_0")
    whole, packed = pellucid.load(path), pellucid.load(path, packed=True)
    with torch.no_grad():
        expected, found = whole(IDS), packed(IDS)
        assert not torch.equal(expected, found)
        assert (expected - found).std() < 0.06 * expected.std()
        cache = packed.cache(1, 7)
        steps = [packed(IDS[:, at : at + 1], cache=cache, last=True) for at in range(7)]
    # The same numbers but for the rounding of inputs that lie on the edge between two.
    assert (torch.stack(steps, 1) - found).std() < 0.06 * expected.std()
    assert (cache.step is not None) == bool(importlib.util.find_spec("numba"))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_packed_weights_take_the_memory_of_the_file(kind, tmp_path):
    path = write(tmp_path / "model.gguf", tiny("llama"), kind)
    packed = pellucid.load(path, packed=True)
    tensors = (*packed.buffers(), *packed.parameters())
    assert sum(tensor.nbytes for tensor in tensors) < 1.2 * path.stat().st_size


def test_packed_is_for_packed_files(tmp_path):
    path = write(tmp_path / "model.gguf", tiny("llama", layers=1), "F16")
    whole, packed = pellucid.load(path), pellucid.load(path, packed=True)
    assert torch.equal(whole(IDS), packed(IDS))
    with pytest.raises(ArgumentError, match=r"packed weights need dtype torch\.float32"):
        pellucid.load(path, packed=True, dtype=torch.bfloat16)


def test_a_packed_model_is_not_saved_and_a_whole_one_is(tmp_path):
    path = write(tmp_path / "model.gguf", tiny("llama", layers=1), "Q8_0", tokenizer=byte_pairs())
    with pytest.raises(ArgumentError, match="a packed model cannot be saved"):
        pellucid.load(path, packed=True).save(tmp_path / "saved")
    whole = pellucid.load(path)
    whole.save(tmp_path / "saved")
    again = pellucid.load(tmp_path / "saved")
    assert torch.equal(again(IDS), whole(IDS))
    assert again.config == whole.config


def test_a_packed_model_is_watched(tmp_path):
    path = write(tmp_path / "model.gguf", tiny("llama"), "Q8_0")
    packed = pellucid.load(path, packed=True)
    with torch.no_grad():
        logits, recording = packed(IDS, watch=True)
        assert torch.equal(logits, packed(IDS))
    assert len(recording.records) == 2

"""Embeddings of all-MiniLM-L6-v2, packed: the same as one by one, and as sentence-transformers'."""

import random
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid import models
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens import watch
from pellucid.tasks import embed, open_encoder

# Some short ones of `texts_of` are nothing else.
pytestmark = pytest.mark.filterwarnings("ignore:.* mostly of characters or words that the model")
WORDS = "rain falls on the old river and she sings of light, stone; why? because 42 birds left"


@pytest.fixture(scope="module")
def minilm():
    return open_encoder()


def texts_of(seed, number, longest=60):
    """Of mixed length, some alike, some with letters that are no ASCII."""
    draw = random.Random(seed)
    words = [*WORDS.split(), "naïve", "Übermut", "雨", "дождь", "🙂", "co-operate"]
    return [" ".join(draw.choices(words, k=draw.randint(1, longest))) for _ in range(number)]


def test_packed_equals_one_by_one(minilm):
    texts = texts_of(1, 23, 20)
    found = embed(minilm, texts)
    alone = torch.cat([embed(minilm, [text]) for text in texts])
    torch.testing.assert_close(found, alone, atol=1e-6, rtol=1e-5)
    assert found.shape == (23, 384)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(23))


@settings(max_examples=7)
@given(seed=st.integers(0, 99), most=st.sampled_from([1, 7, 61, 200, 10_000]))
def test_neither_order_nor_batches_matter(minilm, seed, most):
    texts = texts_of(seed, 11, 20)
    order = random.Random(seed).sample(range(11), 11)
    found = embed(minilm, [texts[number] for number in order], batch_tokens=most)
    torch.testing.assert_close(found, embed(minilm, texts)[order], atol=1e-6, rtol=1e-5)


def test_workers_give_the_same(minilm):
    texts = texts_of(3, 19, 20)
    one = embed(minilm, texts, batch_tokens=61)
    torch.set_num_threads(2)
    try:
        two = embed(minilm, texts, batch_tokens=61)
    finally:
        torch.set_num_threads(1)
    torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)


def test_a_watch_sees_one_batch_after_another(minilm):
    """Whatever the cores, each layer once for each batch, in the order of the layers."""
    torch.set_num_threads(2)
    try:
        with watch(minilm) as seen:
            embed(minilm, texts_of(3, 13, 20), batch_tokens=61)
    finally:
        torch.set_num_threads(1)
    layers = [record.name for record in seen.records]
    passes = len(layers) // minilm.config.layers
    assert passes > 2
    assert layers == layers[: minilm.config.layers] * passes


@pytest.fixture(scope="module")
def theirs():
    """A function from a directory to the model as sentence-transformers reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sentence_transformers

    def read(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return sentence_transformers.SentenceTransformer(str(path), device="cpu")

    return read


def agree(ours, model, texts):
    expected = model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
    found = embed(ours, texts)
    assert float(torch.cosine_similarity(found, expected).min()) >= 0.99999
    torch.testing.assert_close(found.norm(dim=-1), expected.norm(dim=-1))


def test_as_sentence_transformers(minilm, theirs):
    from pellucid.pretrained import minilm as directory

    texts = [*texts_of(5, 16), "long " * 300]
    with pytest.warns(UserWarning, match="1 text of 17 truncated to 256 tokens"):
        agree(minilm, theirs(directory()), texts)


@pytest.mark.parametrize(("pooling", "normalised"), [("mean", True), ("first", False)])
def test_what_is_saved_sentence_transformers_reads(minilm, theirs, tmp_path, pooling, normalised):
    from dataclasses import replace

    config = replace(
        minilm.config, pooling=pooling, normalised=normalised, most_tokens=17, layers=1
    )
    torch.manual_seed(7)
    model = models.Encoder(config).eval()
    model.tokenizer = minilm.tokenizer
    model.save(tmp_path / "saved")
    again = models.load(tmp_path / "saved")
    assert again.config == config
    saved = theirs(tmp_path / "saved")
    assert saved.max_seq_length == 17
    agree(again, saved, texts_of(9, 13, 9))


@pytest.mark.filterwarnings("default:.* mostly of characters or words that the model")
def test_what_the_model_cannot_spell_is_said(minilm):
    texts = ["rain", "สวัสดีครับ", "rain 雨 falls", "🙂 🙂"]
    told = r"2 texts of 4 mostly of characters .*: the first is texts\[1\], “สวัสดีครับ”"
    with pytest.warns(UserWarning, match=told):
        embed(minilm, texts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed(minilm, texts[::2])


def test_what_is_too_long(minilm):
    texts = ["rain", "long " * 300, "longer " * 400]
    told = "2 texts of 3 truncated to 256 tokens, the model's maximum: 192 tokens are lost; the "
    with pytest.warns(UserWarning, match=rf"{told}longest, texts\[\d\], has 402"):
        found = embed(minilm, texts)
    torch.testing.assert_close(found[1:2], embed(minilm, ["long " * 254]))
    with pytest.raises(
        ArgumentError, match=r"texts\[2\] has 402 tokens, but the model reads at most 256"
    ):
        embed(minilm, texts, strict=True)
    with pytest.raises(ArgumentError, match="line 9 has 402 tokens"):
        embed(minilm, texts[2:], strict=True, names=["line 9"])


def test_nothing_to_embed(minilm):
    assert embed(minilm, []).shape == (0, 384)


def test_progress_ends_with_all(minilm):
    seen = []
    embed(minilm, texts_of(2, 5), batch_tokens=30, progress=lambda *step: seen.append(step))
    assert seen[-1] == (5, 5)
    assert sorted(seen) == seen


@pytest.mark.parametrize(
    ("texts", "error", "told"),
    [
        ("rain", TypeMismatchError, "texts must be a list of str"),
        (["rain", None], TypeMismatchError, r"texts\[1\] must be a str, not NoneType"),
        (["rain", " \n"], ArgumentError, r"texts\[1\] is empty"),
        (["\ud800"], ArgumentError, "not valid Unicode"),
    ],
)
def test_what_is_no_text(minilm, texts, error, told):
    with pytest.raises(error, match=told):
        embed(minilm, texts)


def test_what_is_no_encoder(minilm, checkpoint):
    with pytest.raises(ArgumentError, match="is a decoder; embeddings need an encoder"):
        open_encoder(checkpoint("gpt2"))
    bare = models.Encoder(minilm.config)
    with pytest.raises(TypeMismatchError, match="loaded with its tokenizer"):
        embed(bare, ["rain"])
    with pytest.raises(ArgumentError, match="batch_tokens must be at least 1"):
        embed(minilm, ["rain"], batch_tokens=0)

"""Folders of sentence-transformers, tiny and random: `embed` gives what they give."""

import itertools
import json
import shutil
import warnings

import pytest
import torch
import transformers
from tests.models.families import T5, drawn
from tests.sizes import HEADS, SIZES
from tests.word_tokenizer import word_tokenizer

import pellucid
from pellucid.errors import ArgumentError, FileError
from pellucid.models import Encoder
from pellucid.tasks import embed, open_encoder

TEXTS = [
    "rain falls on the old river",
    "the old stone",
    "Rain",
    "she sings of light and of the river and the rain falls",
]
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
PROMPTS = {"query": "rain of: ", "document": "the stone, "}


@pytest.fixture(scope="module")
def st():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sentence_transformers
        from sentence_transformers import models

    sentence_transformers.models = models
    return sentence_transformers


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A function from a kind of model to its directory, in transformers' layout."""
    words = sorted({word for text in TEXTS for word in text.lower().split()} | {":", ","})
    configs = {
        "bert": transformers.BertConfig(**HEADS, **SIZES),
        "cased": transformers.BertConfig(**HEADS, **SIZES),
        "t5": transformers.T5Config(
            **T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False
        ),
        "last": transformers.Qwen3Config(
            head_dim=10, num_key_value_heads=1, **HEADS, **{**SIZES, "eos_token_id": 3}
        ),
    }
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            torch.manual_seed(31)
            maker = {"t5": transformers.T5EncoderModel._from_config}
            whole = maker.get(kind, transformers.AutoModel.from_config)(configs[kind]).eval()
            drawn(whole).save_pretrained(made[kind])
            word_tokenizer(words, kind).save_pretrained(made[kind])
        return made[kind]

    return make


@pytest.fixture
def saved(st, base, tmp_path):
    """Save a model of sentence-transformers; gives its directory and the model."""

    def save(*parts, kind="bert", **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transformer = st.models.Transformer(str(base(kind)))
            model = st.SentenceTransformer(modules=[transformer, *parts], device="cpu", **options)
            torch.manual_seed(37)
            for part in list(model)[1:]:
                drawn(part)
            model.save(str(tmp_path / "theirs"), create_model_card=False)
            return tmp_path / "theirs", st.SentenceTransformer(str(tmp_path / "theirs"))

    return save


def check(directory, theirs, texts=TEXTS, prompt=None, **options):
    """Embed texts here and there; `prompt` is for us, `options` are for them."""
    got = embed(open_encoder(directory), texts, prompt=prompt)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.encode(texts, **options, convert_to_tensor=True, show_progress_bar=False)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected.cpu(), rtol=1e-5, atol=1e-5)
    return got


@pytest.mark.parametrize("mode", [*MODES, ("mean", "max", "cls"), ("lasttoken", "weightedmean")])
def test_every_pooling(mode, st, saved, tmp_path):
    directory, theirs = saved(st.models.Pooling(33, mode))
    got = check(directory, theirs)
    pellucid.load(directory).save(tmp_path / "ours")
    assert torch.equal(embed(open_encoder(tmp_path / "ours"), TEXTS), got)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(tmp_path / "ours", st.SentenceTransformer(str(tmp_path / "ours")))


def test_poolings_that_older_versions_wrote_are_joined_in_their_order(st, saved):
    directory, theirs = saved(st.models.Pooling(33, ("cls", "mean", "weightedmean")))
    file = directory / "1_Pooling/config.json"
    flags = ("weightedmean_tokens", "mean_tokens", "cls_token")
    said = {"word_embedding_dimension": 33, "pooling_mode_max_tokens": False}
    file.write_text(json.dumps(said | {f"pooling_mode_{flag}": True for flag in flags}))
    check(directory, theirs)


@pytest.mark.parametrize(
    ("activation", "bias"),
    [
        (torch.nn.Tanh(), True),
        (torch.nn.Identity(), False),
        (torch.nn.ReLU(), True),
        (torch.nn.GELU(), True),
    ],
)
def test_linear_layers_and_a_norm(activation, bias, st, saved, tmp_path):
    directory, theirs = saved(
        st.models.Pooling(33, ("mean", "cls")),
        st.models.Dense(66, 29, bias=bias, activation_function=activation),
        st.models.Dense(29, 23, bias=False),
        st.models.Normalize(),
    )
    got = check(directory, theirs)
    pellucid.load(directory).save(tmp_path / "ours")
    assert torch.equal(embed(open_encoder(tmp_path / "ours"), TEXTS), got)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(tmp_path / "ours", st.SentenceTransformer(str(tmp_path / "ours")))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pooled", [True, False])
def test_prompts(mode, pooled, st, saved):
    pooling = st.models.Pooling(33, mode, include_prompt=pooled)
    directory, theirs = saved(pooling, prompts=PROMPTS, default_prompt_name="document")
    default = check(directory, theirs)
    query = check(directory, theirs, prompt="query", prompt_name="query")
    assert not torch.allclose(default, query, atol=1e-3)
    text = "she sings: "
    got = embed(open_encoder(directory), TEXTS, prompt=text)
    expected = theirs.encode(TEXTS, prompt=text, convert_to_tensor=True, show_progress_bar=False)
    torch.testing.assert_close(got, expected.cpu(), rtol=1e-5, atol=1e-5)


def test_prompts_come_back(st, saved, tmp_path):
    pooling = st.models.Pooling(33, "mean", include_prompt=False)
    directory, _ = saved(pooling, prompts=PROMPTS, default_prompt_name="query")
    model = pellucid.load(directory)
    assert (dict(model.prompts.texts), model.prompts.default) == (PROMPTS, "query")
    model.save(tmp_path / "ours")
    assert pellucid.load(tmp_path / "ours").prompts == model.prompts
    with pytest.raises(
        ArgumentError, match=r"no prompt 'passage'; its prompts are document and query"
    ):
        embed(open_encoder(directory), TEXTS, prompt="passage")


def test_the_first_numbers(st, saved):
    directory, theirs = saved(st.models.Pooling(33, "mean"), st.models.Normalize())
    got = embed(open_encoder(directory), TEXTS, truncate_dim=7)
    expected = theirs.encode(TEXTS, truncate_dim=7, convert_to_tensor=True).cpu()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ArgumentError, match="truncate_dim must be from 1 to 33, not 34"):
        embed(open_encoder(directory), TEXTS, truncate_dim=34)
    (directory / "config_sentence_transformers.json").write_text('{"truncate_dim": 7}')
    assert torch.equal(embed(open_encoder(directory), TEXTS), got)


@pytest.mark.parametrize("has_head", [False, True])
def test_a_decoder_that_embeds(has_head, st, saved, tmp_path):
    """The shape of Qwen3-Embedding: a causal decoder, the last token, left padding."""
    parts = st.models.Pooling(33, "lasttoken"), st.models.Dense(33, 23), st.models.Normalize()
    directory, theirs = saved(*parts, kind="last", prompts=PROMPTS)
    if has_head:
        file = directory / "config.json"
        said = json.loads(file.read_text()) | {"architectures": ["Qwen3ForCausalLM"]}
        file.write_text(json.dumps(said))
    model = pellucid.load(directory)
    assert isinstance(model, Encoder)
    assert model.config.causal
    got = check(directory, theirs)
    model.save(tmp_path / "ours")
    assert json.loads((tmp_path / "ours/config.json").read_text())["model_type"] == "qwen3"
    assert torch.equal(embed(open_encoder(tmp_path / "ours"), TEXTS), got)
    check(directory, theirs, prompt="query", prompt_name="query")


def test_the_encoder_of_an_encoder_decoder(st, saved, tmp_path):
    """The shape of GTR and Sentence-T5."""
    parts = st.models.Pooling(33, "mean"), st.models.Dense(33, 23), st.models.Normalize()
    directory, theirs = saved(*parts, kind="t5")
    got = check(directory, theirs)
    pellucid.load(directory).save(tmp_path / "ours")
    assert json.loads((tmp_path / "ours/config.json").read_text())["model_type"] == "t5"
    assert torch.equal(embed(open_encoder(tmp_path / "ours"), TEXTS), got)
    ids = torch.arange(4, 17)[None]
    with torch.no_grad():
        before, after = (
            transformers.T5EncoderModel.from_pretrained(path)(ids).last_hidden_state
            for path in (directory, tmp_path / "ours")
        )
    assert torch.equal(before, after)
    bare = tmp_path / "bare"  # the whole model's tensors, of which the encoder is used
    torch.manual_seed(31)
    config = transformers.AutoConfig.from_pretrained(directory)
    drawn(transformers.AutoModelForSeq2SeqLM.from_config(config)).save_pretrained(bare)
    for file in ("modules.json", "tokenizer.json"):
        shutil.copy(directory / file, bare)
    for folder in ("1_Pooling", "2_Dense"):
        shutil.copytree(directory / folder, bare / folder)
    model = pellucid.load(bare)
    assert isinstance(model, Encoder)
    assert embed(model, TEXTS).shape == got.shape


@pytest.mark.parametrize("name", ["sentence_bert_config", "sentence_roberta_config"])
def test_the_layout_of_old_versions(name, st, saved):
    directory, theirs = saved(
        st.models.Pooling(33, "mean"), st.models.Dense(33, 23), st.models.Normalize()
    )
    inner = directory / "0_Transformer"
    inner.mkdir()
    outside = {"modules.json", "config_sentence_transformers.json", "README.md"}
    for file in [file for file in directory.iterdir() if file.is_file()]:
        if file.name not in outside:
            shutil.move(file, inner / file.name)
    (inner / "sentence_bert_config.json").rename(inner / f"{name}.json")
    file = directory / "modules.json"
    modules = json.loads(file.read_text())
    modules[0]["path"] = "0_Transformer"
    for part in modules:
        part["type"] = "sentence_transformers.models." + part["type"].rpartition(".")[2]
    file.write_text(json.dumps(modules))
    check(directory, theirs)


def test_texts_that_are_to_be_lowercased(st, saved, tmp_path):
    directory, theirs = saved(st.models.Pooling(33, "mean"), kind="cased")
    texts = ["Rain falls", "THE river"]
    differs = embed(open_encoder(directory), texts)
    file = directory / "sentence_bert_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "do_lower_case": True}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = st.SentenceTransformer(str(directory))
    got = check(directory, theirs, texts)
    assert not torch.allclose(got, differs, atol=1e-3)
    pellucid.load(directory).save(tmp_path / "ours")
    assert torch.equal(embed(open_encoder(tmp_path / "ours"), texts), got)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"activation_function": "os.system"}, r"has the activation 'os\.system'; known are Tanh,"),
        ({"activation_function": "torch.nn.Foo"}, "has the activation"),
        ({"out_features": 0}, "a value that does not fit"),
        ({"out_features": 29}, r"dense\.0\.weight is \(23, 33\), not \(29, 33\)"),
        ({"use_residual": True}, "a Dense that is not on the embedding alone"),
        ({"module_input_name": "token_embeddings"}, "a Dense that is not on the embedding alone"),
    ],
)
def test_a_linear_layer_that_is_refused(changes, told, st, saved):
    directory, _ = saved(st.models.Pooling(33, "mean"), st.models.Dense(33, 23))
    file = directory / "2_Dense/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(FileError, match=told):
        pellucid.load(directory)


def test_what_lies_outside_is_not_read(st, saved):
    directory, _ = saved(st.models.Pooling(33, "mean"), st.models.Dense(33, 23))
    file = directory / "modules.json"
    modules = json.loads(file.read_text())
    for number, path in itertools.product((0, 2), ("../x", "/etc")):
        changed = json.loads(json.dumps(modules))
        changed[number]["path"] = path
        file.write_text(json.dumps(changed))
        with pytest.raises(FileError, match=r"its modules\.json names a file outside"):
            pellucid.load(directory)
    file.write_text(json.dumps(modules))
    (directory / "2_Dense/model.safetensors").rename(directory / "2_Dense/pytorch_model.bin")
    with pytest.raises(FileError, match=r"pickled \(pytorch_model\.bin\).*SentenceTransformer"):
        pellucid.load(directory)

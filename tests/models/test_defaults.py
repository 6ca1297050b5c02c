"""A key that config.json leaves out means what it means to transformers, family by family."""

import json
import re

import pytest
import transformers

import pellucid
from pellucid.models.checkpoints import read_config
from tests.models.families import EVEN, FAMILIES, PAIR, T5, drawn, ours, theirs
from tests.sizes import GPT2, HEADS, SIZES, WINDOW

pytestmark = pytest.mark.usefixtures("quiet_transformers")
MANY = {"hidden_size": 64, "num_attention_heads": 32}
NEEDED = {
    *("model_type", "vocab_size", "hidden_size", "d_model", "n_embd", "num_hidden_layers"),
    *("n_layer", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers"),
    *("num_attention_heads", "num_heads", "n_head", "encoder_attention_heads", "d_kv", "d_ff"),
    *("decoder_attention_heads", "intermediate_size", "n_inner", "encoder_ffn_dim"),
    *("dim", "n_heads", "n_layers", "hidden_dim"),
    *("decoder_ffn_dim", "relative_attention_num_buckets", "relative_attention_max_distance"),
}
"""Sizes, which are those of a tiny model here."""
ASIDE = re.compile("drop|init|summary|classifier|use_cache|version|architectures|dtype")
"""Keys that say nothing of what a model makes."""


def _plain(sizes):
    """Sizes with all else as the family has it."""
    return {name: value for name, value in sizes.items() if not name.startswith(("max_", "n_pos"))}


_t = transformers
CONFIGS = {
    "bert": lambda: _t.BertConfig(**HEADS, **_plain(SIZES)),
    "roberta": lambda: _t.RobertaConfig(**HEADS, **_plain({**SIZES, "pad_token_id": 1})),
    "roberta, xlm": lambda: _t.XLMRobertaConfig(**HEADS, **_plain({**SIZES, "pad_token_id": 1})),
    "roberta, data2vec": lambda: _t.Data2VecTextConfig(
        **HEADS, **_plain({**SIZES, "pad_token_id": 1})
    ),
    "bert, ernie": lambda: _t.ErnieConfig(**HEADS, **_plain(SIZES)),
    "bert-generation": lambda: _t.BertGenerationConfig(**HEADS, **_plain(SIZES)),
    "distilbert": lambda: _t.DistilBertConfig(
        dim=33, n_heads=3, hidden_dim=37, n_layers=2, vocab_size=101
    ),
    "mpnet": lambda: _t.MPNetConfig(**HEADS, **_plain({**SIZES, "pad_token_id": 1})),
    "electra": lambda: _t.ElectraConfig(**HEADS, **_plain(SIZES)),
    "albert": lambda: _t.AlbertConfig(**HEADS, **_plain(SIZES)),
    "electra, rembert": lambda: _t.RemBertConfig(**HEADS, **_plain(SIZES)),
    "megatron-bert": lambda: _t.MegatronBertConfig(**HEADS, **_plain(SIZES)),
    "roberta-prelayernorm": lambda: _t.RobertaPreLayerNormConfig(
        **HEADS, **_plain({**SIZES, "pad_token_id": 1})
    ),
    "xlm-roberta-xl": lambda: _t.XLMRobertaXLConfig(
        **HEADS, **_plain({**SIZES, "pad_token_id": 1})
    ),
    "nomic_bert": lambda: _t.NomicBertConfig(**EVEN, **_plain(SIZES)),
    "gte": lambda: _t.GteConfig(**EVEN, **_plain({**SIZES, "pad_token_id": 1})),
    "jina_embeddings_v3": lambda: _t.JinaEmbeddingsV3Config(
        **EVEN, **_plain({**SIZES, "pad_token_id": 1})
    ),
    "roformer": lambda: _t.RoFormerConfig(**EVEN, **_plain(SIZES)),
    "modernbert": lambda: _t.ModernBertConfig(**EVEN, **_plain(SIZES)),
    "eurobert": lambda: _t.EuroBertConfig(**EVEN, **_plain(SIZES)),
    "gpt2": lambda: _t.GPT2Config(**_plain(GPT2)),
    "llama": lambda: _t.LlamaConfig(**MANY, **_plain(SIZES)),
    "mistral": lambda: _t.MistralConfig(**MANY, **_plain(SIZES)),
    "qwen2": lambda: _t.Qwen2Config(**MANY, **_plain(SIZES)),
    "qwen3": lambda: _t.Qwen3Config(**MANY, **_plain(SIZES)),
    "t5": lambda: _t.T5Config(**T5),
    "mt5": lambda: _t.MT5Config(**T5),
    "umt5": lambda: _t.UMT5Config(**T5),
    "bart": lambda: _t.BartConfig(**_plain(PAIR)),
    "marian": lambda: _t.MarianConfig(**_plain(PAIR)),
    "plbart": lambda: _t.PLBartConfig(**_plain(PAIR)),
    "mvp": lambda: _t.MvpConfig(**_plain(PAIR)),
    "mbart": lambda: _t.MBartConfig(**_plain(PAIR)),
    "blenderbot": lambda: _t.BlenderbotConfig(**_plain(PAIR)),
    "pegasus": lambda: _t.PegasusConfig(**_plain(PAIR)),
    "m2m_100": lambda: _t.M2M100Config(**_plain(PAIR)),
}


def known(number, config):
    """An id, or None where it is not in the vocabulary."""
    return number if number is not None and number < config.vocab_size else None


SLOW = {"mvp"}
"""With many keys, each read in the way of bart."""


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.slow) if x in SLOW else x for x in CONFIGS]
)
def test_a_key_that_is_not_there(name, tmp_path):
    kind = FAMILIES[name].kind
    drawn(FAMILIES[name].maker.from_config(CONFIGS[name]()).eval()).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    file = tmp_path / "config.json"
    said = json.loads(file.read_text())
    models, results = {}, {}  # theirs, and what ours gives, for each config that it is read as
    for key in said.keys() - NEEDED:
        if ASIDE.search(key):
            continue
        if name in ("marian", "modernbert", "eurobert") and key == "pad_token_id":
            continue  # it is 50,000 or more, which so small a table of theirs has not
        file.write_text(json.dumps({one: value for one, value in said.items() if one != key}))
        config = transformers.AutoConfig.from_pretrained(tmp_path)
        read, _ = read_config(tmp_path)
        if read not in results:
            got = pellucid.load(tmp_path)
            results[read] = got.config, ours(name, got)
        own, result = results[read]
        meant = config.to_json_string(use_diff=False)
        if meant not in models:
            models[meant] = theirs(name, FAMILIES[name].maker.from_pretrained(tmp_path).eval())
        expected = models[meant]
        assert (result - expected).abs().max() <= 1e-5 * expected.abs().max(), key
        if "max_position_embeddings" in said:
            rows = own.positions + (own.position_offset if kind == "encoder" else 0)
            assert rows == config.max_position_embeddings
        if kind == "encoder":
            continue
        stop = known(config.eos_token_id, config)
        assert (own.stop, own.padding) == (
            () if stop is None else (stop,),
            known(config.pad_token_id, config),
        ), key
        start = "bos_token_id" if kind == "decoder" else "decoder_start_token_id"
        if name != "t5":  # transformers lets it have none, and begins with padding
            assert own.start == known(getattr(config, start, None), config), key


@pytest.mark.parametrize(("given", "window"), [({}, 4096), ({"sliding_window": None}, None)])
def test_the_window_of_mistral(given, window, tmp_path):
    """Which a text of a test is too short to show; null says that there is none."""
    config = _t.MistralConfig(sliding_window=WINDOW, **MANY, **SIZES)
    _t.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    said = json.loads(file.read_text())
    del said["sliding_window"]
    file.write_text(json.dumps(said | given))
    assert pellucid.load(tmp_path).config.window == window
    read = _t.AutoConfig.from_pretrained(tmp_path)
    assert read.sliding_window == window

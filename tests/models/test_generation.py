"""What a checkpoint says of how its texts are written is heeded, kept, or named in a warning."""

import json
import warnings

import pytest
import torch
import transformers

import pellucid
from pellucid.errors import ArgumentError
from pellucid.models.checkpoints.generation import Generation
from pellucid.tasks.translation import translate
from tests.models.families import PAIR, VOCABULARY

TEXTS = ["t7 t19 t23", "t5", "t11 t13 t17 t29 t31 t37 t41"]
ASKED = {
    "num_beams": 3,
    "length_penalty": 0.6,
    "forced_bos_token_id": 5,
    "forced_eos_token_id": 2,
    "max_length": 18,
}


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    """A random model whose texts end now and then, and its directory, with a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(11)
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(**PAIR)).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.final_logits_bias[0, 2] = 4.0
    directory = tmp_path_factory.mktemp("bart")
    tokens = {f"t{number}": number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="t4"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model.save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def say(directory, **settings):
    """Its generation_config.json: the marks, and nothing but these settings."""
    marks = {"decoder_start_token_id": 3, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (directory / "generation_config.json").write_text(json.dumps(marks | settings))
    return directory


def generated(directory):
    """What transformers writes when it is told nothing, without the start and what comes behind."""
    model = transformers.BartForConditionalGeneration.from_pretrained(directory).eval()
    # As translation does: padding is never written, and takes no probability from what is.
    options = {"renormalize_logits": True}
    if model.generation_config.bad_words_ids is None:
        options["bad_words_ids"] = [[0]]
    found = []
    for text in TEXTS:
        ids = torch.tensor([[int(word[1:]) for word in text.split()]])
        with torch.no_grad():
            row = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, 1:]
        row = row.tolist()
        found.append(row[: row.index(2) + 1] if 2 in row else row)
    return found


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"length_penalty": 2.0},
        {"forced_bos_token_id": None, "length_penalty": 2.0},
        {"num_beams": 1},
        {"early_stopping": True, "length_penalty": 3.0},
        {"max_new_tokens": 7},
        {"no_repeat_ngram_size": 2, "min_length": 7, "repetition_penalty": 1.3},
        {"forced_bos_token_id": None, "bad_words_ids": [[0], [5]], "suppress_tokens": [7, 9]},
    ],
)
def test_translations_are_as_the_checkpoint_says(bart, change):
    settings = {name: value for name, value in (ASKED | change).items() if value is not None}
    if settings["num_beams"] == 1:  # transformers warns of what only a search needs
        del settings["length_penalty"]
    say(bart, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = generated(bart)
    found = [one.ids for one in translate(pellucid.load(bart), TEXTS)]
    assert found == expected
    assert {row[0] == 5 for row in found} == {"forced_bos_token_id" in settings}


def test_what_a_caller_says_goes_before(bart):
    model = pellucid.load(say(bart, **ASKED))
    with_them = translate(model, TEXTS)
    model.generation = Generation(forced_bos_token_id=5)
    given = translate(model, TEXTS, beams=3, length_penalty=0.6, max_tokens=17)
    assert [one.ids for one in given] == [one.ids for one in with_them]
    assert [one.score for one in given] == [one.score for one in with_them]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (
            {"encoder_no_repeat_ngram_size": 3, "guidance_scale": 1.5},
            "encoder_no_repeat_ngram_size = 3 and guidance_scale = 1.5",
        ),
        ({"no_repeat_ngram_size": 3, "repetition_penalty": 1.3, "typical_p": 0.5}, None),
        ({"do_sample": True, "temperature": 0.7}, "do_sample = True"),
        ({"num_beams": "many"}, "num_beams = many"),
        ({"forced_bos_token_id": VOCABULARY}, f"forced_bos_token_id = {VOCABULARY}"),
        ({"early_stopping": "never"}, "early_stopping = never"),
        ({"no_repeat_ngram_size": 0, "min_length": 0, "bad_words_ids": [[0]]}, None),
    ],
)
def test_what_is_not_heeded_is_named(bart, settings, named):
    model = pellucid.load(say(bart, **settings))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        translate(model, TEXTS[:1], max_tokens=5)
    start, end = "the model's generation_config.json sets ", ", which translation does not support"
    assert [str(one.message) for one in caught] == ([start + named + end] if named else [])


def test_settings_that_make_no_sense(bart):
    with pytest.raises(ArgumentError, match="beams must be from 1 to 512, not 0"):
        translate(pellucid.load(say(bart, num_beams=0)), TEXTS)


def test_settings_are_saved_and_read_by_transformers(bart, tmp_path):
    settings = {**ASKED, "temperature": 0.7, "top_k": 5, "no_repeat_ngram_size": 3}
    model = pellucid.load(say(bart, **settings))
    assert model.generation.temperature == 0.7
    assert model.generation.others == {"no_repeat_ngram_size": 3}
    model.save(tmp_path)
    assert pellucid.load(tmp_path).generation == model.generation
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path)
    marks = {"decoder_start_token_id": 3, "eos_token_id": 2, "pad_token_id": 0}
    assert {name: getattr(theirs, name) for name in settings | marks} == settings | marks


def test_settings_of_another_model_are_not_left(bart, tmp_path):
    pellucid.load(say(bart, **ASKED)).save(tmp_path)
    model = pellucid.load(bart)
    model.generation = Generation()
    model.save(tmp_path, overwrite=True)
    assert pellucid.load(tmp_path).generation == Generation()


def test_older_checkpoints_say_it_in_config_json(bart, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((bart / name).read_bytes())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_beams": 5}))
    assert pellucid.load(tmp_path).generation.num_beams == 5

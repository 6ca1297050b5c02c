"""How a checkpoint says that its tokens are chosen is how they are chosen."""

import json

import pytest
import torch
import transformers
from tests import writers

from pellucid.errors import ArgumentError
from pellucid.models.checkpoints.generation import FILE, Generation, read
from pellucid.tasks.decoders import sampling_of
from pellucid.tasks.generation import generate
from pellucid.tasks.sampling import Sampling, probabilities

PROMPTS = torch.tensor([[3, 5, 7]])


@pytest.fixture(scope="module")
def model():
    return writers.writer()


def said(model, directory, **settings):
    """The settings of a generation_config.json."""
    (directory / FILE).write_text(json.dumps(settings))
    return read(directory, model.config)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.6, "top_p": 0.9},
        {"top_k": 0, "min_p": 0.05},
        {"top_k": 7, "typical_p": 0.8, "epsilon_cutoff": 0.02, "eta_cutoff": 0.01},
    ],
)
def test_do_sample_is_as_transformers_samples(model, tmp_path, settings, monkeypatch):
    monkeypatch.setattr(model, "generation", said(model, tmp_path, do_sample=True, **settings))
    config = transformers.GenerationConfig.from_pretrained(tmp_path)
    peer = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=2, n_layer=1, n_head=1, vocab_size=writers.VOCABULARY)
    )
    config, _ = peer._prepare_generation_config(config)
    processors = peer._get_logits_processor(config, input_ids_seq_length=3)
    logits = 2 * torch.randn(5, writers.VOCABULARY, generator=torch.Generator().manual_seed(1))
    expected = processors(PROMPTS.expand(5, -1), logits.clone()).softmax(-1)
    torch.testing.assert_close(probabilities(logits, sampling_of(model)), expected)


def test_it_is_the_default_and_a_seed_decides(model, tmp_path, monkeypatch):
    settings = {"temperature": 0.9, "top_k": 23}
    monkeypatch.setattr(model, "generation", said(model, tmp_path, do_sample=True, **settings))
    one, same, other = (generate(model, PROMPTS, max_tokens=13, seed=n)[0].ids for n in (1, 1, 2))
    assert one == same != other
    given = Sampling(**settings)
    assert generate(model, PROMPTS, max_tokens=13, seed=1, sampling=given)[0].ids == one
    greedy = generate(model, PROMPTS, max_tokens=13, sampling=Sampling(temperature=0))[0].ids
    monkeypatch.setattr(model, "generation", said(model, tmp_path, do_sample=False, **settings))
    assert generate(model, PROMPTS, max_tokens=13)[0].ids == greedy != one


def test_what_does_not_fit_is_said(model, monkeypatch):
    monkeypatch.setattr(model, "generation", Generation(do_sample=True, top_p=1.5))
    with pytest.raises(ArgumentError, match=r"generation_config\.json does not fit: top_p must be"):
        generate(model, PROMPTS)

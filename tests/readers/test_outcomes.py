"""What a model answers, and how far two answers are apart, beside the same worked out by hand."""

import pytest
import torch
import transformers
from tests import writers

from pellucid import pretrained
from pellucid.errors import ArgumentError, OutOfRangeError
from pellucid.models import load
from pellucid.readers import outcomes
from pellucid.readers.forward_pass import inputs_of
from pellucid.readers.hugging_face import TheirCheckpoint
from pellucid.readers.outcomes import open_answering, outcome_of
from pellucid.tasks.classify import FILE, Head
from pellucid.tasks.embedding import embed, open_encoder

TEXT = "Once upon a time there was"
SMALL = {"vocab_size": writers.VOCABULARY, "intermediate_size": 37, "pad_token_id": 1}
SMALL |= {"bos_token_id": 2, "eos_token_id": 3}


def answering(model, text=TEXT, target=None, positions=None):
    checkpoint = open_answering(model)
    inputs = inputs_of(text, target, checkpoint, None)
    return outcome_of(checkpoint, inputs, positions, model=model)


def by_hand(p, q):
    """KL in float64 of log-probabilities, the mean over positions."""
    p, q = p.double(), q.double()
    return (p.exp() * (p - q)).sum(-1).mean()


@pytest.fixture
def decoder(tmp_path):
    model = writers.writer()
    model.save(tmp_path / "decoder")
    return str(tmp_path / "decoder")


@pytest.mark.parametrize("positions", [None, [3], [-2, 1], range(6)])
def test_next_tokens(decoder, positions):
    outcome = answering(decoder, positions=positions)
    ids = outcome.inputs["input_ids"]
    with torch.no_grad():
        truth = load(decoder).double()(ids)[0].log_softmax(-1)
    found = outcome.log_probabilities(outcome.run(2))
    expected = truth[[-1] if positions is None else list(positions)]
    assert outcome.kind == "next token"
    for item in found:
        torch.testing.assert_close(item.double(), expected, rtol=0, atol=2e-5)


def test_the_effect_is_the_divergence_whatever_is_computed_at_once(decoder, monkeypatch):
    outcome = answering(decoder, positions=range(7))
    before = outcome.run()
    after = before + 0.3 * torch.randn(5, *before.shape[1:], generator=torch.manual_seed(11))
    logs = outcome.log_probabilities(before), outcome.log_probabilities(after)
    expected = torch.stack([by_hand(logs[0][0], one) for one in logs[1]])
    for at_once in (1, 4 * writers.VOCABULARY * 5, 2**24):
        monkeypatch.setattr(outcomes, "AT_ONCE", at_once)
        torch.testing.assert_close(outcome.effect(before, after), expected, rtol=1e-5, atol=1e-9)
    assert outcome.effect(before, before.expand(3, -1, -1)).tolist() == [0, 0, 0]


def test_labels_of_the_packaged_classifier():
    outcome = answering("sentiment", "a wonderful, touching film")
    shares = outcome.log_probabilities(outcome.run()).exp()[0]
    assert outcome.kind == "label"
    assert dict(zip(outcome.names, shares.tolist(), strict=True))["positive"] > 0.9
    head = Head.load(pretrained.SENTIMENT / FILE)
    vectors = embed(open_encoder("sentiment"), ["a wonderful, touching film"])
    torch.testing.assert_close(shares[None], head.probabilities(vectors), rtol=1e-4, atol=1e-6)


def test_a_translation_is_asked_token_by_token():
    text, target = "The king sent his servant.", "El rey envió a su siervo."
    outcome = answering("translator", text, target)
    model = load("translator")
    source, given = outcome.inputs["input_ids"], outcome.inputs["decoder_input_ids"]
    with torch.no_grad():
        expected = model(source, given)[0].log_softmax(-1)
    found = outcome.log_probabilities(outcome.run())[0]
    assert (outcome.kind, len(found)) == ("translation", given.shape[1])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_an_embedding_has_no_probabilities():
    outcome = answering("minilm")
    before = outcome.run()
    after = torch.cat([before, -before, before.roll(1, -1)])
    cosines = torch.cosine_similarity(before.double(), after.double())
    torch.testing.assert_close(outcome.effect(before, after), 1 - cosines, rtol=0, atol=1e-6)
    with pytest.raises(ArgumentError, match="gives no probabilities"):
        outcome.log_probabilities(before)
    with pytest.raises(ArgumentError, match="leave positions out"):
        answering("minilm", positions=[0])


def saved(model, directory):
    """A model of transformers with a tokenizer."""
    model.eval().save_pretrained(directory)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=writers.tokenizer().inner)
    tokenizer.save_pretrained(directory)
    return str(directory)


def test_a_decoder_that_only_transformers_has(tmp_path):
    torch.manual_seed(5)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    model = transformers.PersimmonForCausalLM(transformers.PersimmonConfig(**SMALL, **sizes))
    outcome = answering(saved(model, tmp_path), positions=[2, 5])
    assert isinstance(outcome.checkpoint, TheirCheckpoint)
    with torch.no_grad():
        expected = model(outcome.inputs["input_ids"]).logits[0, [2, 5]].log_softmax(-1)
    found = outcome.log_probabilities(outcome.run(3))
    torch.testing.assert_close(found, expected.expand(3, -1, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["RoCBert", "Deberta"])
def test_an_encoder_that_only_transformers_has(name, tmp_path):
    """One of them has a language-model head of causal models, and sees ahead nevertheless."""
    torch.manual_seed(7)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    config = getattr(transformers, f"{name}Config")(**SMALL, **sizes)
    model = getattr(transformers, f"{name}ForMaskedLM")(config)
    outcome = answering(saved(model, tmp_path))
    assert isinstance(outcome.checkpoint, TheirCheckpoint)
    assert outcome.kind == "embedding"
    assert len(outcome.run(2)) == 2


@pytest.mark.parametrize("position", [99, -99])
def test_a_position_that_is_not_there(decoder, position):
    with pytest.raises(OutOfRangeError, match=f"no position {position}"):
        answering(decoder, positions=[position])

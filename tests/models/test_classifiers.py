"""Sequence classifiers that transformers wrote give the same scores here, and the other way."""

import json

import pytest
import torch
import transformers

import pellucid
from pellucid.models import Encoder
from tests.models.families import FAMILIES, drawn, exact, ids
from tests.sizes import BATCH

pytestmark = pytest.mark.usefixtures("quiet_transformers")
LABELS = {0: "calm", 1: "glad", 2: "wary", 3: "sore", 4: "odd"}
CLASSIFIERS = [
    *("bert", "bert, ernie", "roberta", "roberta, xlm", "roberta, camembert", "roberta, data2vec"),
    *("distilbert", "mpnet", "electra", "bert, electra", "albert", "electra, rembert"),
    *("megatron-bert", "roberta-prelayernorm", "xlm-roberta-xl"),
    *("nomic_bert", "gte", "roformer", "modernbert", "modernbert, biases", "eurobert"),
    *("gemma2", "gemma3_text", "phi3", "gpt_neox", "falcon", "stablelm"),
    *("gpt2", "llama", "mistral", "qwen2", "qwen3"),
]


def written(name, directory, **said):
    config = FAMILIES[name].config()
    config.id2label, config.pad_token_id = LABELS, config.pad_token_id or 0
    for key, value in said.items():
        setattr(config, key, value)
    torch.manual_seed(29)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    drawn(model).save_pretrained(directory)
    return directory


def theirs(directory):
    """In float32 and in float64."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
    with torch.no_grad():
        return model(ids()).logits, exact(model)(ids()).logits


def ours(model):
    with torch.no_grad():
        x = model(ids())
        return model.logits(x.flatten(0, 1), torch.full((BATCH,), x.shape[1]))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scores_are_those_of_transformers_here_and_saved(name, tmp_path):
    written(name, tmp_path / "theirs")
    expected, truth = theirs(tmp_path / "theirs")
    model = pellucid.load(tmp_path / "theirs")
    assert isinstance(model, Encoder)
    size = expected.abs().max()
    assert (ours(model) - expected).abs().max() <= 1e-5 * size
    in_double = ours(pellucid.load(tmp_path / "theirs", dtype=torch.float64))
    most = 1e-10 if FAMILIES[name].is_exact else 1e-5
    assert (in_double - truth).abs().max() <= most * size
    assert model.config.classifier.labels == tuple(LABELS.values())
    model.save(tmp_path / "ours")
    again = pellucid.load(tmp_path / "ours")
    assert again.config == model.config
    assert (theirs(tmp_path / "ours")[0] - expected).abs().max() <= 1e-5 * size
    assert json.loads((tmp_path / "ours/config.json").read_text())["id2label"]["3"] == "sore"


@pytest.mark.parametrize("name", ["distilbert", "llama"])
def test_each_text_of_a_row_is_scored_alone(name, tmp_path):
    model = pellucid.load(written(name, tmp_path))
    rows = ids()
    with torch.no_grad():
        parts = [model(rows[:1, :7])[0], model(rows[1:, :4])[0]]
        both = model.logits(torch.cat(parts), torch.tensor([7, 4]))
        alone = [model.logits(part, torch.tensor([len(part)])) for part in parts]
    torch.testing.assert_close(both, torch.cat(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "labels", "scores"),
    [
        (None, LABELS, "softmax"),
        ("single_label_classification", LABELS, "softmax"),
        ("multi_label_classification", LABELS, "sigmoid"),
        ("regression", {0: "score"}, "none"),
        (None, {0: "score"}, "sigmoid"),
    ],
)
def test_what_scores_mean(kind, labels, scores, tmp_path):
    written("bert", tmp_path, problem_type=kind, id2label=labels)
    model = pellucid.load(tmp_path)
    assert model.config.classifier.scores == scores
    model.save(tmp_path / "ours")
    assert pellucid.load(tmp_path / "ours").config == model.config


def test_labels_that_a_config_does_not_name(tmp_path):
    written("bert", tmp_path, id2label={0: "a", 1: "b"})
    file = tmp_path / "config.json"
    said = json.loads(file.read_text())
    for key in ("id2label", "label2id"):
        said.pop(key, None)
    file.write_text(json.dumps(said))
    assert pellucid.load(tmp_path).config.classifier.labels == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"0": "a", "2": "b"}, "id2label whose ids are not 0, 1, 2"),
        ({"x": "a"}, "a value that does not fit"),
        ({"0": 1}, "a value that does not fit"),
        ([], "a value that does not fit"),
        ({}, "id2label whose ids are not"),
        ({"0": "a"}, r"classifier\.weight is \(5, 33\), not \(1, 33\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, reason, tmp_path):
    written("bert", tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "id2label": labels}))
    with pytest.raises(OSError, match=reason):
        pellucid.load(tmp_path)


def test_a_number_of_labels_that_no_file_has_is_refused(tmp_path):
    written("bert", tmp_path, id2label={0: "a", 1: "b"})
    file = tmp_path / "config.json"
    said = json.loads(file.read_text())
    for key in ("id2label", "label2id"):
        said.pop(key, None)
    file.write_text(json.dumps({**said, "num_labels": 10**12}))
    with pytest.raises(OSError, match="does not fit: num_labels is 1000000000000"):
        pellucid.load(tmp_path)

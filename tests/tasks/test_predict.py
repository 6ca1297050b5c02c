"""Labels from the classifiers of Hugging Face's models, as transformers gives them."""

import json

import pytest
import torch
import transformers
from tests.models.families import drawn
from tests.sizes import GROUPED, HEADS, SIZES
from tests.word_tokenizer import word_tokenizer

import pellucid
from pellucid.errors import ArgumentError
from pellucid.tasks import open_encoder, predict

TEXTS = ["rain falls", "she sings of the old river", "stone", "the light and the river"]
WORDS = sorted({word for text in TEXTS for word in text.split()})
LABELS = {0: "calm", 1: "glad", 2: "wary"}
KINDS = {
    "bert": lambda: transformers.BertConfig(**HEADS, **SIZES),
    "last": lambda: transformers.LlamaConfig(**GROUPED, **SIZES),
}


@pytest.fixture
def saved(tmp_path):
    """Save a classifier; gives its directory."""

    def save(kind="bert", problem=None, labels=LABELS):
        config = KINDS[kind]()
        config.id2label, config.problem_type = labels, problem
        torch.manual_seed(41)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        drawn(model).save_pretrained(tmp_path)
        word_tokenizer(WORDS, kind).save_pretrained(tmp_path)
        return tmp_path

    return save


def theirs(directory):
    """The logits of transformers, text by text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
    with torch.no_grad():
        rows = [tokenizer(text, return_tensors="pt").input_ids for text in TEXTS]
        return torch.cat([model(row).logits for row in rows])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("problem", "labels", "scored"),
    [
        (None, LABELS, lambda logits: logits.softmax(-1)),
        ("multi_label_classification", LABELS, torch.sigmoid),
        ("regression", {0: "stars"}, lambda logits: logits),
    ],
)
def test_what_the_classifier_says(kind, problem, labels, scored, saved):
    directory = saved(kind, problem, labels)
    got = predict(open_encoder(directory), TEXTS)
    torch.testing.assert_close(got, scored(theirs(directory)), rtol=1e-5, atol=1e-5)


def test_a_model_without_one(saved):
    directory = saved()
    file = directory / "config.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps({**said, "architectures": ["BertModel"]}))
    with pytest.raises(ArgumentError, match="the model has no classifier"):
        predict(pellucid.load(directory), TEXTS)


def test_the_command(saved, run):
    directory = saved()
    expected = theirs(directory).softmax(-1)
    status, out, _ = run("classify", *TEXTS, "--model", directory, "--json")
    assert status == 0
    said = json.loads(out)
    assert (said["kind"], said["labels"]) == ("label", list(LABELS.values()))
    for item, shares in zip(said["items"], expected, strict=True):
        assert item["label"] == LABELS[int(shares.argmax())]
        assert list(item["probabilities"].values()) == pytest.approx(shares.tolist(), abs=1e-5)
    status, out, _ = run("classify", *TEXTS, "--model", directory)
    assert status == 0
    assert "rain falls" in out
    assert LABELS[int(expected[0].argmax())] in out


def test_the_command_with_several_labels_and_with_a_number(saved, run):
    directory = saved(problem="multi_label_classification")
    shares = theirs(directory)[0].sigmoid()
    _, out, _ = run("classify", *TEXTS, "--model", directory, "--json")
    chosen = {label for number, label in LABELS.items() if shares[number] >= 0.5}
    assert set(json.loads(out)["items"][0]["labels"]) == chosen
    saved(problem="regression", labels={0: "stars"})
    _, out, _ = run("classify", *TEXTS, "--model", directory, "--json")
    number = float(theirs(directory)[0, 0])
    assert json.loads(out)["items"][0]["number"] == pytest.approx(number, abs=1e-5)


def test_a_head_of_several_numbers_is_refused(saved, run):
    directory = saved(problem="regression")
    status, _, error = run("classify", *TEXTS, "--model", directory)
    assert status == 2
    assert "the model predicts 3 numbers, not one or labels" in error

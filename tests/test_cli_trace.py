"""`pellucid trace`, run as a user runs it."""

import json
from io import StringIO

import pytest
import torch
import transformers
from rich.console import Console

from pellucid.commands.printing import traces
from pellucid.lens import Source, Trace
from pellucid.readers.tracing import Traced, trace_text
from tests.checkpoints import SENTENCE, byte_pairs
from tests.command_line import options_of

TEXT = "In the beginning God created the heaven and the earth. In the beginning God created the"
REVIEW = "I thought it would be boring, but it was a wonderful film"


def test_the_options_are_those_documented(run):
    status, out, _ = run("trace", "--help")
    assert status == 0
    assert options_of(out) == {
        "--file", "--encoding", "--target", "--model", "--method", "--token", "--against",
        "--position", "--max-tokens", "--svg", "--html", "--overwrite", "--json", "--help",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "width"),
    [("direct", 40), ("direct", 120), ("gradient", 80), ("chefer", 80), ("lrp", 80)],
)
def test_a_prediction_at_every_width(run, method, width):
    status, out, err = run("trace", TEXT, "--method", method, width=width)
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= width
    told = " ".join(out.split())
    assert "Pellucid's decoder predicts “ earth”, 40%, after token 17" in told
    assert "What each head gave" in told
    assert ("Nothing is missing but rounding" in told) == (method in ("direct", "lrp"))
    assert "\x1b" not in out


def test_json_adds_up(run):
    status, out, err = run("trace", TEXT, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["choice"] == " earth"
    assert len(found["tokens"]) == 18
    assert len(found["heads"]) == 24
    parts = sum(part["amount"] for part in found["parts"])
    heads = sum(head["amount"] for head in found["heads"])
    tokens = sum(token["amount"] for token in found["tokens"])
    assert heads == pytest.approx(tokens, abs=1e-5)
    assert heads + parts == pytest.approx(found["number"], abs=1e-4)
    assert found["is_exact"]
    # Head 5.3 copies what came after the same words before: heaven, and earth.
    best = max(found["heads"], key=lambda head: head["amount"])
    assert (best["layer"], best["head"]) == ("5", 3)


def test_a_token_against_another_at_an_earlier_place(run):
    arguments = ["--token", "heaven", "--against", "earth", "--position", "6", "--json"]
    found = json.loads(run("trace", TEXT, *arguments)[1])
    assert (found["choice"], found["against"], found["position"]) == (" heaven", " earth", 6)
    assert not any(token["amount"] for token in found["tokens"][7:])
    # What is written there is explained, unless another token is asked for.
    written = json.loads(run("trace", TEXT, "--position", "6", "--json")[1])
    assert written["choice"] == " heaven"


def test_what_was_asked_for_is_not_called_predicted(run):
    told = run("trace", "And God said, Let there be", "--token", "light")[1]
    assert "Pellucid's decoder gives “ light” <1% after token 7" in told
    assert "predicts" not in told
    told = run("trace", REVIEW, "--model", "sentiment", "--token", "negative")[1]
    assert "Pellucid's sentiment gives “negative” 4%\n" in told


def test_a_token_against_itself(run):
    status, out, err = run("trace", TEXT, "--against", "earth")
    assert (status, out) == (2, "")
    assert err == "pellucid: --against ' earth' is what is explained itself; name another\n"


def test_a_text_from_a_file_and_a_special_token(run, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    found = json.loads(run("trace", "--file", path, "--token", "<|end|>", "--json")[1])
    assert found["choice"] == "<|end|>"
    assert len(found["tokens"]) == 18
    assert found["heads"][0]["from"][0].keys() == {"position", "amount"}


def test_a_label(run):
    status, out, _ = run("trace", REVIEW, "--model", "sentiment")
    assert status == 0
    assert "says “positive”" in out
    assert "Nothing is missing but rounding" in out
    found = json.loads(run("trace", REVIEW, "--model", "sentiment", "--json")[1])
    amounts = {token["text"].strip(): token["amount"] for token in found["tokens"]}
    assert amounts["wonderful"] > 1
    assert amounts["boring"] < -1
    less = ["--token", "negative", "--against", "positive", "--json"]
    other = json.loads(run("trace", REVIEW, "--model", "sentiment", *less)[1])
    assert other["number"] < 0


def test_a_translation_has_two_texts(run):
    arguments = ["trace", "The old man went to the sea", "--model", "translator"]
    status, out, _ = run(*arguments, "--method", "lrp", "--position", "3")
    assert status == 0
    assert "Pellucid's translator translates with" in out
    assert "The old man went to the sea" in out
    assert "Nothing is missing but rounding" in out
    found = json.loads(run(*arguments, "--target", "El hombre", "--position", "1", "--json")[1])
    assert found["choice"].strip() == "hombre"
    assert len(found["source_tokens"]) >= 7


def test_pictures(run, tmp_path):
    svg, html = tmp_path / "earth.svg", tmp_path / "earth.html"
    status, _, err = run("trace", TEXT, "--svg", svg, "--html", html)
    assert status == 0
    assert err == f"wrote {svg}\nwrote {html}\n"
    for path in (svg, html):
        drawn = path.read_text(encoding="utf-8")
        assert "earth" in drawn
        assert "5.3: +1.67" in drawn
        assert "<script" not in drawn


@pytest.mark.parametrize("method", ["direct", "lrp"])
def test_a_classifier_of_transformers(tmp_path, method):
    """Opened as one of Pellucid's, whose head has an activation."""
    torch.manual_seed(4)
    config = transformers.BertConfig(
        vocab_size=307, hidden_size=33, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=37, max_position_embeddings=53, num_labels=3, initializer_range=0.4,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    byte_pairs().save_pretrained(tmp_path)
    found = trace_text(SENTENCE, model=str(tmp_path), method=method, step=lambda *_: None)
    assert found.kind == "label"
    assert found.choice.startswith("LABEL_")
    assert found.trace.is_exact


def test_a_token_that_looks_like_markup_is_printed():
    """Rich would take [b] for bold."""
    trace = Trace(
        method="direct",
        token=0,
        against=None,
        position=1,
        number=1.0,
        probability=0.5,
        logits=torch.zeros(2),
        tokens=torch.tensor([1.0, -0.5]),
        source_tokens=None,
        heads={"layers.0.attn": torch.tensor([0.5])},
        pairs={"layers.0.attn": torch.tensor([[1.0, -0.5]])},
        others={Source("bias", "layers.0"): 0.5},
        absorbed={},
        adds_up=True,
    )
    traced = Traced(
        model="m", kind="next token", trace=trace, choice="[b]", against=None,
        tokens=["[b]", "[/b]"], labels=["0"], likeliest=[("[b]", 0.5)],
    )  # fmt: skip
    written = StringIO()
    traces.show(traced, Console(file=written, width=80))
    lines = written.getvalue()
    assert "[/b] 1 -0.500" in lines
    assert "from [b] 0 +1.00, [/b] 1 -0.50" in lines
    assert "Nothing is missing" in lines


def test_a_narrow_terminal_breaks_no_token(run):
    found = json.loads(run("trace", TEXT, "--json")[1])
    tokens = [token["text"].strip() for token in found["tokens"]]
    for width in (20, 27):
        lines = run("trace", TEXT, width=width)[1].splitlines()
        assert max(map(len, lines)) <= width
        for token in ["“ earth”", *tokens]:
            assert any(token in line for line in lines), (width, token)


def test_a_long_text_is_cut(run):
    found = json.loads(run("trace", TEXT, "--max-tokens", "5", "--json")[1])
    assert len(found["tokens"]) == 5


def test_what_is_refused(refused):
    assert "is no single token" in refused("trace", TEXT, "--token", "heaven and earth")
    assert "method must be one of direct, gradient, chefer, lrp" in refused(
        "trace", TEXT, "--method", "guess"
    )
    assert "--position must be from -18 to 17, not 40" in refused("trace", TEXT, "--position", "40")
    assert "must be one of negative, positive" in refused(
        "trace", REVIEW, "--model", "sentiment", "--token", "good"
    )
    assert "leave --position out" in refused(
        "trace", REVIEW, "--model", "sentiment", "--position", "1"
    )
    assert "use direct, gradient or lrp" in refused(
        "trace", "A dog", "--model", "translator", "--method", "chefer"
    )


def test_a_model_of_transformers(checkpoint):
    """A GPT-2 as transformers has it; its tokens are bytes."""
    told = []
    traced = trace_text(
        "Write a poem about rain",
        model=str(checkpoint("gpt2")),
        step=lambda name, done, of: told.append(name),
    )
    assert traced.trace.is_exact
    assert "".join(traced.tokens) == "Write a poem about rain"
    assert told[0] == "opening the model"

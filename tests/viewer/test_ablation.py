"""What the page is told of a model without some of its parts, beside the model with hooks."""

from contextlib import contextmanager

import pytest
import torch

from pellucid.errors import ArgumentError, OutOfRangeError
from pellucid.models import load
from pellucid.viewer import volumes
from pellucid.viewer.api import Api
from pellucid.viewer.catalogue import Catalogue, Volume
from tests import writers
from tests.viewer import recordings

TEXT = "Once upon a time there was a little girl"
SOURCE = "The king sent his servant to the city."
SILENT = {"step": lambda *_: None}


def answer(api, path, **options):
    return api.ask(path, options).find()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("decoder")
    writers.writer().save(directory)
    return str(directory)


@pytest.fixture(scope="module")
def api(model):
    return Api(Catalogue(volumes.read(TEXT, "one", model=model, **SILENT)))


@contextmanager
def without_head(model, layer, head):
    """The model with the context of a head set to zero before the output projection."""
    attention = model.decoder.blocks[layer].attention
    dim = attention.output.weight.shape[1] // model.config.heads

    def zero(_, inputs):
        [x] = inputs
        return (x.index_fill(-1, torch.arange(head * dim, (head + 1) * dim), 0.0),)

    hook = attention.output.register_forward_pre_hook(zero)
    yield
    hook.remove()


def shares(model, ids, at=-1):
    with torch.no_grad():
        return model(ids)[0, at].double().softmax(-1)


def test_a_head_and_how_far_the_answer_is_then(api, model):
    own = load(model)
    ids = torch.tensor([own.tokenizer.inner.encode(TEXT).ids])
    found = answer(api, "ablated/0", edits="head.1.2")
    before = shares(own, ids)
    with without_head(own, 1, 2):
        after = shares(own, ids)
    assert (found["kind"], found["position"]) == ("next token", ids.shape[1] - 1)
    assert found["effect"] == pytest.approx(
        (before * (before / after).log()).sum().item(), rel=1e-4
    )
    best = sorted({*before.topk(6).indices.tolist(), *after.topk(6).indices.tolist()})
    best.sort(key=lambda one: -before[one])
    assert found["before"] == pytest.approx(before[best].tolist(), rel=1e-4)
    assert found["after"] == pytest.approx(after[best].tolist(), rel=1e-4)
    assert len(found["names"]) == len(best)


def test_nothing_is_knocked_out(api):
    found = answer(api, "ablated/0")
    assert found["effect"] == 0
    assert found["before"] == found["after"]
    assert found["before"] == sorted(found["before"], reverse=True)


def test_a_word_is_hidden_from_all(api, model):
    """A decoder that never reads the first token says the same of the rest, but for positions."""
    own = load(model)
    ids = torch.tensor([own.tokenizer.inner.encode(TEXT).ids])
    hidden = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool)
    hidden[..., 3] = False
    with torch.no_grad():
        expected = own(ids, mask=hidden)[0, -1].double().softmax(-1)
    found = answer(api, "ablated/0", edits="word.1.3")
    best = expected.topk(6).values.tolist()
    assert sorted(found["after"], reverse=True)[:6] == pytest.approx(best, rel=1e-4)


def test_a_link_of_all_heads_is_all_links(api):
    whole = answer(api, "ablated/0", edits="link.0.all.9.2")
    each = "_".join(f"link.0.{head}.9.2" for head in range(3))
    assert answer(api, "ablated/0", edits=each)["after"] == pytest.approx(whole["after"], rel=1e-5)
    assert whole["effect"] > 0


def test_a_head_and_a_word_of_all_heads_go_together(api):
    both = answer(api, "ablated/0", edits="word.0.4_head.1.2_link.1.2.9.3_head.1.2")
    assert both == answer(api, "ablated/0", edits="head.1.2_word.0.4")
    assert both["effect"] != answer(api, "ablated/0", edits="word.0.4")["effect"]


def test_any_position_can_be_asked(api, model):
    own = load(model)
    ids = torch.tensor([own.tokenizer.inner.encode(TEXT).ids])
    found = answer(api, "ablated/0", after="5")
    assert found["position"] == 4
    assert found["before"][0] == pytest.approx(shares(own, ids, 4).max().item(), rel=1e-4)


def test_a_position_that_is_not_there_is_told_as_it_was_asked(api, model):
    tokens = len(load(model).tokenizer.inner.encode(TEXT).ids)
    answer(api, "ablated/0", after=str(tokens))
    for after in (tokens + 1, 9999):
        told = f"no token {after}; they are counted from 1 to {tokens}"
        with pytest.raises(OutOfRangeError, match=told):
            answer(api, "ablated/0", after=str(after))


def test_effects_of_all_heads_come_layer_by_layer(model):
    api = Api(Catalogue(volumes.read(TEXT, "one", model=model, **SILENT)))
    first = answer(api, "effects")
    assert (first["done"], first["of"], len(first["rows"])) == (1, 2, 3)
    rows = answer(api, "effects")["rows"]
    assert answer(api, "effects")["done"] == 2
    for row in rows:
        alone = answer(api, "ablated/0", edits=f"head.{row['layer_index']}.{row['head']}")
        assert row["effect"] == pytest.approx(alone["effect"], rel=1e-3, abs=1e-9)


def test_a_verdict_without_its_word():
    api = Api(Catalogue(volumes.read("a wonderful film", "one", model="sentiment", **SILENT)))
    words = answer(api, "keys/0/0")["words"]
    edits = f"word.0.{words.index(' wonderful')}"
    found = answer(api, "ablated/0", edits=edits)
    assert found["kind"] == "label"
    assert sum(found["before"]) == pytest.approx(1)
    at = found["names"].index("positive")
    assert found["after"][at] < found["before"][at]


def test_a_translation_without_a_word():
    volume = volumes.read(SOURCE, "one", model="translator", new_tokens=47, **SILENT)
    api = Api(Catalogue(volume))
    words = answer(api, "keys/0/0")["words"]
    cross = next(i for i, one in enumerate(answer(api, "about")["layers"]) if one["is_cross"])
    plain = answer(api, "ablated/0")
    assert plain["texts"][0] == plain["texts"][1]
    found = answer(api, "ablated/0", edits=f"word.{cross}.{words.index(' king')}")
    assert found["texts"][0] == plain["texts"][0] != found["texts"][1]
    assert "rey" in found["texts"][0]
    assert "rey" not in found["texts"][1]


@pytest.mark.parametrize(
    ("edits", "error"),
    [
        ("heads.0.1", "'heads.0.1' is no edit"),
        ("head.0", "'head.0' is no edit"),
        ("head.0.x", "'x' is no head of 'head.0.x'"),
        ("head.0.all", "'all' is no head"),
        ("head.7.0", "there is no layer 7 in recording 0"),
        ("head.0.3", "there is no head 3; there are 3"),
        ("word.0.99", "there is no key 99"),
        ("link.0.0.99.1", "there is no query 99"),
    ],
)
def test_edits_that_make_no_sense(api, edits, error):
    with pytest.raises((ArgumentError, OutOfRangeError), match=error):
        answer(api, "ablated/0", edits=edits)


def test_without_a_model():
    api = Api(Catalogue(Volume(recordings.encoder(), "one")))
    assert not answer(api, "about")["recordings"][0]["can_run"]
    assert answer(api, "effects") == {"done": 0, "of": 0, "rows": []}
    with pytest.raises(ArgumentError, match="not at hand"):
        answer(api, "ablated/0")

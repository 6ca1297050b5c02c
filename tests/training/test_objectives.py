"""What is learnt: nothing at the start, all of it in the end, and packed as alone."""

import math
from itertools import chain

import numpy as np
import pytest
import torch

from pellucid.training.batches import LengthBatches, Windows
from tests.training.tiny import CONTEXT, END, KINDS, VOCABULARY, objective, some_texts


def mean_loss(made, part):
    return float(made(part).detach()) / made.targets(part)


@pytest.mark.parametrize(
    ("kind", "choices"), [("decoder", 37), ("translator", 37), ("classifier", 3)]
)
def test_the_start_is_a_guess(kind, choices, tmp_path):
    made = objective(kind, tmp_path)
    assert mean_loss(made, made.batch(0)) == pytest.approx(math.log(choices), rel=0.02)


def test_the_start_of_a_masked_encoder_is_a_guess(tmp_path):
    made = objective("masked", tmp_path, batch_tokens=10_000)
    torch.manual_seed(0)
    with torch.no_grad():
        losses = [mean_loss(made, made.batch(0)) for _ in range(40)]
    # How many are hidden is drawn: 15 % of some 100 tokens, 40 times.
    assert np.mean(losses) == pytest.approx(math.log(VOCABULARY), rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_one_batch_is_learnt_by_heart(kind, tmp_path):
    made = objective(kind, tmp_path)
    part = made.batch(0)
    if kind == "decoder":  # within one text: how others begin, nobody can know
        ends = made.windows.texts.ends
        longest = int(made.windows.texts.lengths.argmax())
        made.context = made.windows.context = 7
        part = [int(ends[longest]) - 9]
    fast = torch.optim.Adam(made.parameters(), 0.01)
    for _ in range(150):
        torch.manual_seed(3)  # the same tokens are hidden each time
        loss = made(part) / made.targets(part)
        fast.zero_grad()
        loss.backward()
        fast.step()
        if float(loss.detach()) < 0.02:
            return
    pytest.fail(f"a loss of {float(loss.detach())} after 150 steps")


@pytest.mark.parametrize("kind", ["translator", "classifier"])
def test_packed_texts_teach_what_they_teach_alone(kind, tmp_path):
    made = objective(kind, tmp_path).double()
    part = made.batch(0)
    assert len(part) > 2
    together, alone = made(part), sum(made([text]) for text in part)
    torch.testing.assert_close(together, alone)
    grads = [torch.autograd.grad(one, list(made.parameters())) for one in (together, alone)]
    torch.testing.assert_close(*grads)


def test_a_text_in_a_window_is_read_as_if_alone(tmp_path):
    """The window starts in the middle of a text and goes on into others."""
    made = objective("decoder", tmp_path).double()
    texts = made.windows.texts
    start = int(texts.ends[3]) - 2
    total = torch.zeros((), dtype=torch.float64)
    place = start
    while place < start + CONTEXT:
        end = min(int(texts.ends[np.searchsorted(texts.ends, place, "right")]), start + CONTEXT)
        logits = made.model(texts.span(place, end)[None])[0]
        targets = texts.span(place + 1, end + 1)
        total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        place = end
    torch.testing.assert_close(made([start]), total)


def test_every_held_out_token_is_judged_once(tmp_path):
    """A model that guesses has ln(vocabulary) nats a token, wherever the windows overlap."""
    made = objective("decoder", tmp_path)
    made.model.decoder.tokens.weight.data.zero_()
    found, held_out = made.measure(), made.held_out
    nats = math.log(VOCABULARY)
    assert found["loss"] == pytest.approx(nats)
    bits = nats / math.log(2) * (len(held_out.ids) - 1) / held_out.bytes
    assert found["bits_per_byte"] == pytest.approx(bits)


# A quarter: sums of its squares are exact in any order, so that all are alike on any processor.
@pytest.mark.parametrize("value", [0.0, 0.25, math.nan])
def test_who_is_told_from_nobody_is_found_last(value, tmp_path, monkeypatch):
    made = objective("contrastive", tmp_path)
    monkeypatch.setattr(made, "_embedded", lambda *_: torch.full((13, 7), value))
    assert made.measure() == {"found_first": 0.0, "reciprocal_rank": pytest.approx(1 / 13)}


def test_what_is_no_number_is_found_last_and_is_in_the_way_of_the_others(tmp_path, monkeypatch):
    made, side = objective("contrastive", tmp_path), torch.eye(5)
    monkeypatch.setattr(made, "_embedded", lambda *_: side)
    assert made.measure() == {"found_first": 1.0, "reciprocal_rank": 1.0}
    side[3] = math.nan
    found = made.measure()
    assert found == {"found_first": 0.0, "reciprocal_rank": pytest.approx((4 / 2 + 1 / 5) / 5)}


def test_a_classifier_is_examined_in_one_pass(tmp_path):
    made, parts = objective("classifier", tmp_path).eval(), []
    read = made._logits
    made._logits = lambda texts, part: parts.extend(part) or read(texts, part)
    found = made.examine()
    assert sorted(parts) == list(range(len(made.held_out[0])))
    assert made.measure().items() <= found.items()


def test_windows_see_all_in_an_epoch_and_begin_elsewhere_in_the_next(tmp_path):
    windows = Windows(some_texts(tmp_path, count=100, ends=False), CONTEXT, 1, seed=5)
    epochs = [
        [windows.starts(step)[0] for step in range(n * windows.each, (n + 1) * windows.each)]
        for n in (0, 1)
    ]
    for starts in epochs:
        assert len(starts) > 30
        assert (np.diff(sorted(starts)) == CONTEXT).all()
        assert starts != sorted(starts)
        assert max(starts) + CONTEXT < len(windows.texts.ids)
    assert epochs[0] != epochs[1]
    assert windows.starts(windows.each) == epochs[1][:1]  # whatever was asked before


def test_bunches_read_all_in_an_epoch_and_keep_to_their_size():
    lengths = np.random.default_rng(0).integers(1, 43, 211)
    bunches = LengthBatches(lengths, 97, seed=5)
    count = len(bunches.current[2])
    epochs = [[bunches.texts(n * count + step).tolist() for step in range(count)] for n in (0, 1)]
    assert sorted(chain(*epochs[0])) == list(range(211))
    assert all(lengths[one].sum() <= 97 for one in epochs[0])
    assert epochs[0] != epochs[1]
    assert bunches.texts(3).tolist() == epochs[0][3]  # back again


def test_the_mark_that_begins_a_text_ends_the_one_before(tmp_path):
    texts = some_texts(tmp_path, ends=False)
    packed, targets = Windows(texts, CONTEXT, 1, 0).read([0])
    last = int(texts.ends[0]) - 1
    assert targets[0, last] == END
    assert packed.positions[0, last + 1] == 0
    assert packed.texts[0, last] != packed.texts[0, last + 1]

"""What is learnt: nothing at the start, all of it in the end, and packed as alone."""

import math
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from pellucid.models import Encoder
from pellucid.tasks.classify import FILE, Head
from pellucid.training.batches import LengthBatches, Windows
from pellucid.training.objectives import Classification, Contrastive
from pellucid.training.objectives.pairs import Pairs
from pellucid.training.sequences import Sequences
from tests.training.tiny import CONTEXT, END, KINDS, VOCABULARY, config, objective, some_texts


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
    made = objective(kind, tmp_path, layers=1)
    part = made.batch(0)
    if kind == "decoder":  # within one text: how others begin, nobody can know
        ends = made.windows.texts.ends
        longest = int(made.windows.texts.lengths.argmax())
        made.context = made.windows.context = 7
        part = [int(ends[longest]) - 9]
    fast = torch.optim.Adam(made.parameters(), 0.01, fused=True)
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
    monkeypatch.setattr(made, "_embedded", lambda *_: torch.full((17, 7), value))
    found = made.measure()
    assert (found["found_first"], found["reciprocal_rank"]) == (0.0, pytest.approx(1 / 17))


def test_what_is_no_number_is_found_last_and_is_in_the_way_of_the_others(tmp_path, monkeypatch):
    made, side = objective("contrastive", tmp_path), torch.eye(17)
    # Each different answer is a candidate once, in the order of the keys.
    rows = lambda texts, part, _: side[list(part)]  # noqa: E731
    monkeypatch.setattr(made, "_embedded", rows)
    found = made.measure()
    assert (found["found_first"], found["reciprocal_rank"]) == (1.0, 1.0)
    side[3] = math.nan
    found = made.measure()
    wanted = pytest.approx((16 / 2 + 1 / 17) / 17)
    assert (found["found_first"], found["reciprocal_rank"]) == (0.0, wanted)


def answered(directory, questions=31, answers=3):
    """Pairs of different questions, each with one of few answers, and an objective on them."""
    generator = np.random.default_rng(0)
    first = some_texts(directory / "a", count=questions, longest=12)
    own = generator.integers(2, VOCABULARY, (answers, 5)).tolist()
    which = np.arange(questions) % answers
    second = Sequences.build(directory / "b", [[*own[n], END] for n in which], VOCABULARY)
    model = Encoder(config("encoder"))
    pairs = first, second
    return Contrastive(model, pairs, pairs, batch_tokens=2000), which


def test_a_model_that_is_always_right_finds_one_of_few_answers_first(tmp_path, monkeypatch):
    made, which = answered(tmp_path)
    side = torch.eye(3)[torch.from_numpy(which)]
    monkeypatch.setattr(made, "_embedded", lambda texts, part, _: side[list(part)])
    found = made.examine()
    assert (found["found_first"], found["reciprocal_rank"]) == (1.0, 1.0)
    assert (found["pairs"], found["candidates"]) == (31, 3)
    assert found["chance"] == pytest.approx(1 / 3)
    assert found["interval"][1] == 1
    side = side.roll(1, 1) * 0.5 + 0.5 * side.roll(2, 1)
    monkeypatch.setattr(
        made,
        "_embedded",
        lambda texts, part, _: (torch.eye(3)[which] if texts is made.held_out[0] else side)[
            list(part)
        ],
    )
    assert made.measure()["found_first"] == 0
    assert made.measure()["reciprocal_rank"] == pytest.approx(1 / 3)


def test_pairs_with_the_same_answer_or_question_are_no_negatives(tmp_path):
    made, _ = answered(tmp_path, questions=2, answers=1)
    assert (
        float(made.double()([0, 1]).detach()) == 0
    )  # nothing is wrong, so nothing is to be learnt
    made, which = answered(tmp_path / "b", questions=7)
    made = made.double()
    part = list(range(7))
    sides = [torch.nn.functional.normalize(made.pooled(made.packed(x, part))) for x in made.pairs]
    similar = sides[0].float() @ sides[1].float().T / 0.05
    total = 0.0
    for own in part:  # by hand: each against itself and the pairs with other answers
        rivals = [n for n in part if n == own or which[n] != which[own]]
        for row in (similar[own], similar[:, own]):
            total += float((row[rivals].logsumexp(0) - row[own]).detach()) / 2
    assert float(made(part).detach()) == pytest.approx(total, rel=1e-5)
    # A question belongs to all its answers, and to those of the same question elsewhere.
    belong = Pairs((np.array([5, 5, 6]), np.array([1, 2, 2])))
    assert belong.right([0, 1, 2], [0, 1, 2]).tolist() == [
        [True, True, True],
        [True, True, True],
        [False, True, True],
    ]
    keys = (np.array([5, 5, 6]), np.array([1, 2, 3]))
    assert Pairs(keys).right([0, 2], [1, 2]).tolist() == [[True, False], [False, True]]


def test_a_classifier_is_examined_in_one_pass(tmp_path):
    made, parts = objective("classifier", tmp_path).eval(), []
    read = made._scores
    made._scores = lambda texts, part: parts.extend(part) or read(texts, part)
    found = made.examine()
    assert sorted(parts) == list(range(len(made.held_out[0])))
    assert made.measure().items() <= found.items()


def classifier(directory, kind, *, balanced=False, width=24):
    texts = some_texts(directory / "a")
    number = np.arange(len(texts))
    labels = {
        "label": np.minimum(number % 7, 2),
        "labels": np.stack([number % 2 == 0, number % 5 < 4, number < 0], 1),
        "number": number * 10.0 + 3,
    }[kind]
    names = () if kind == "number" else ("a", "b", "c")
    keys = number // 2  # two by two equal
    return Classification(
        Encoder(config("encoder", width=width, layers=1)), texts, labels, (texts, labels), names,
        batch_tokens=10_000, kind=kind, balanced=balanced, keys=keys,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["label", "labels", "number"])
def test_classifiers_of_each_kind_learn_and_tell(kind, tmp_path):
    torch.manual_seed(0)
    made = classifier(tmp_path, kind)
    part, fast = list(range(17)), torch.optim.Adam(made.parameters(), 0.01, fused=True)
    before = made.eval().examine()
    for _ in range(60):
        loss = made(part) / 17
        fast.zero_grad()
        loss.backward()
        fast.step()
    after = made.examine()
    assert after["loss"] < before["loss"] / 3
    assert (after["value"] < before["value"]) == (kind == "number")
    assert after["chance"]["p"] < 0.05
    assert after["texts"] == 9
    assert after.get("labels_left_out") == (["c"] if kind == "labels" else None)
    assert made.measure().items() <= after.items()
    weights = made.state_dict()
    made.save(tmp_path / "model", weights)
    made.finish(tmp_path / "model")
    head = Head.load(tmp_path / "model" / FILE)
    assert (head.kind, head.temperature, head.margin) == (kind, made.temperature, made.margin)
    with torch.no_grad():
        pooled = made.pooled(made.packed(made.texts, part))
        predictions = made._predictions(made._scores(made.texts, part))
    if made.model.config.normalised:
        pooled = torch.nn.functional.normalize(pooled)
    theirs = (
        head.scores(pooled)
        if kind == "number"
        else replace(head, temperature=1.0).probabilities(pooled)
    )
    np.testing.assert_allclose(theirs.numpy(), predictions, rtol=1e-4, atol=1e-4)
    again = made._scores(made.texts, part)
    made.restore(tmp_path / "model")
    torch.testing.assert_close(made.eval()._scores(made.texts, part), again, atol=1e-4, rtol=1e-4)


def test_balanced_losses_weigh_labels_as_scikit_learn_does(tmp_path):
    made = classifier(tmp_path, "label", balanced=True)
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=made.labels)
    np.testing.assert_allclose(made.weights, theirs)
    assert made.judged_by == "balanced_accuracy"
    made = made.eval().double()
    alone = [float(made([n]).detach()) for n in range(17)]
    made.weights = torch.empty(0)
    plain = [float(made([n]).detach()) for n in range(17)]
    np.testing.assert_allclose(alone, theirs[made.labels] * plain, rtol=1e-6)
    several = classifier(tmp_path / "b", "labels", balanced=True)
    np.testing.assert_allclose(several.weights[:2], [8 / 9, 3 / 14])


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

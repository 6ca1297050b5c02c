"""Heads on texts made for the purpose: where they look, and what goes without them."""

import copy
import json
import math

import pytest
import torch
import transformers
from tests import writers
from tests.compiled_programs import program
from tests.lens.tiny import GROUPED, SIZES, VOCABULARY
from torch import nn

import pellucid
from pellucid.errors import ArgumentError, TypeMismatchError, UnknownNameError
from pellucid.lens import ProbeTable, probe_heads
from pellucid.lens.probes.knock_outs import alike, behaviours_without
from pellucid.lens.probes.names import names
from pellucid.lens.probes.needle import needle
from pellucid.lens.probes.repeated_tokens import repeated_tokens
from pellucid.lens.probes.scores import Place
from pellucid.lens.probes.sinks import first_token
from pellucid.lens.probes.vocabulary import Vocabulary

REPEATED = ("previous token", "duplicates", "induction")


def vocabulary():
    return Vocabulary(writers.VOCABULARY, writers.tokenizer())


class Words:
    """A tokenizer with an id for each word, and a mark before and after each text."""

    all_special_ids = (0, 1)

    def __init__(self):
        self.ids = {}

    def __call__(self, text, **_):
        spaced = text.replace(",", " ,").replace(".", " .").split()
        ids = [self.ids.setdefault(word, 2 + len(self.ids)) for word in spaced]
        return {"input_ids": [0, *ids, 1]}


def gpt2():
    torch.manual_seed(7)
    config = transformers.GPT2Config(
        n_embd=33, n_layer=2, n_head=3, n_positions=53, vocab_size=VOCABULARY, initializer_range=0.5
    )
    return transformers.GPT2LMHeadModel(config).eval()


def llama():
    torch.manual_seed(7)
    config = transformers.LlamaConfig(**GROUPED, **SIZES, initializer_range=0.5)
    return transformers.LlamaForCausalLM(config).eval()


# Texts


def test_what_is_repeated_and_what_is_not():
    made = repeated_tokens(Vocabulary(61), 15, 3, 1)
    [trial], [control] = made.trials, made.controls
    assert trial.ids.shape == control.ids.shape == (3, 14)
    assert torch.equal(trial.ids[:, :7], trial.ids[:, 7:])
    assert torch.equal(trial.ids[:, :7], control.ids[:, :7])
    assert all(len(set(text)) == 14 for text in control.ids.tolist())
    assert not torch.equal(trial.ids[0], trial.ids[1])
    for item, query, key in trial.links["induction"].tolist():
        assert trial.ids[item, query + 1] == trial.ids[item, key]
        assert key < 7 <= query
    assert len(trial.links["induction"]) == 3 * 6
    for item, query, key in trial.links["duplicates"].tolist():
        assert trial.ids[item, query] == trial.ids[item, key]
    assert len(trial.links["duplicates"]) == 3 * 7
    query, key = trial.links["previous token"][:, 1:].unbind(-1)
    assert torch.equal(query - 1, key)
    assert key.min() == 1  # not the first token, which is another probe's
    assert trial.predicted[:, 1].min() == 7  # the first of the repeated tokens nothing tells
    for item, position, token in trial.predicted.tolist():
        assert trial.ids[item, position + 1] == token


def test_marks_at_the_start_are_not_repeated():
    [trial] = repeated_tokens(Vocabulary(50, Words()), 14, 2, 1).trials
    assert trial.ids.shape == (2, 13)
    assert (trial.ids[:, 0] == 0).all()
    assert not (trial.ids[:, 1:] < 2).any()
    assert trial.links["duplicates"][0].tolist() == [0, 7, 1]


def test_the_needle_is_where_its_links_are():
    words = Words()
    made = needle(Vocabulary(10_000, words), 150, 3, 1)
    spelt = {number: word for word, number in words.ids.items()}
    depths = []
    for trial, control in zip(made.trials, made.controls, strict=True):
        [ids], [other] = trial.ids.tolist(), control.ids.tolist()
        assert len(ids) == len(other) <= 150
        links, predicted = trial.links["retrieval"].tolist(), trial.predicted.tolist()
        assert torch.equal(trial.links["retrieval"], control.links["retrieval"])
        assert torch.equal(trial.predicted, control.predicted)
        for (_, query, key), (_, position, token) in zip(links, predicted, strict=True):
            assert query == position
            assert ids[key] == token
            assert query + 1 == len(ids) or ids[query + 1] == token
        assert links[-1][1] == len(ids) - 1
        text, without = (" ".join(spelt.get(x, "") for x in one) for one in (ids, other))
        answer = " ".join(spelt[token] for *_, token in predicted)
        assert text.count(f"lives by the {answer} and no one else") == 1
        assert text.endswith(f"lives by the {answer}".rpartition(" ")[0])
        assert without.count("lives by the") == 1
        assert without.endswith(f"lives by the {answer}".rpartition(" ")[0])
        depths.append(links[0][2] / len(ids))
    assert depths == sorted(depths)
    assert depths[0] < 0.35 < depths[-1]


def test_names_are_where_their_links_are():
    words = Words()
    made = names(Vocabulary(10_000, words), 2, 1)
    texts = leads = 0
    for trial, control in zip(made.trials, made.controls, strict=True):
        assert trial.ids.shape == control.ids.shape
        movers, inhibitors = trial.links["name mover"], trial.links["S-inhibition"]
        rows = zip(trial.ids, control.ids, movers, inhibitors, trial.rather_than, strict=True)
        for item, (ids, other, (a, end, first), (b, end_too, second), subject) in enumerate(rows):
            assert a == b == item
            assert end == end_too == len(ids) - 1
            object_ = trial.predicted[item, 2]
            assert ids[first] == object_ == other[first]
            assert ids[second] == subject != other[second]
            assert [int((ids == one).sum()) for one in (object_, subject)] == [1, 2]
            assert int((other == subject).sum()) == 1
            texts += 1
            leads += int(first < (ids == subject).nonzero()[0, 0])
    assert texts == 16
    assert leads == 8


def test_a_text_of_words_and_one_of_random_tokens():
    for tokens in (Vocabulary(10_000, Words()), Vocabulary(61)):
        [trial] = first_token(tokens, 29, 2, 1).trials
        assert trial.ids.shape == (2, 29)
        assert trial.links["first token"][:, 2].unique().tolist() == [0]
        assert len(trial.links["first token"]) == 2 * 28


def test_a_behaviour_by_hand():
    [trial] = repeated_tokens(Vocabulary(5), 4, 1, 0).trials
    logits = torch.zeros(1, 4, 5)
    logits[0, 2, trial.ids[0, 3]] = 2
    expected = 2 - math.log(math.e**2 + 4)
    assert trial.behaviour(logits).tolist() == pytest.approx([expected])


# Scores


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_scores_are_means_of_the_models_own_weights(kind):
    model = gpt2() if kind == "gpt2" else llama()
    table = probe_heads(model, probes=(*REPEATED, "first token"), length=21, check=False, seed=3)
    model.set_attn_implementation("eager")
    made = repeated_tokens(Vocabulary(VOCABULARY), 21, 2, 3)
    plain = first_token(Vocabulary(VOCABULARY), 21, 2, 3)
    of_text = {"first token": (plain.trials[0], None)}
    trials = dict.fromkeys(REPEATED, (made.trials[0], made.controls[0])) | of_text
    for probe, (trial, control) in trials.items():
        rows = {(row.layer, row.head): row for row in table.of(probe)}
        with torch.no_grad():
            weights, without = (
                torch.stack(model(one.ids, output_attentions=True).attentions).double()
                for one in (trial, control or trial)
            )
        item, query, key = trial.links[probe].unbind(-1)
        for (layer, head), row in rows.items():
            score = weights[layer, item, head, query, key].mean()
            assert row.score == pytest.approx(score.item(), abs=1e-6)
            base = without[layer, item, head, query, key].mean()
            if probe in ("previous token", "first token"):
                base = (1 / (1 + query.double())).mean()
            assert row.baseline == pytest.approx(base.item(), abs=1e-6)
    assert {row.probe for row in table} == {*REPEATED, "first token"}
    assert all(check.heads == () for check in table.checks)


def test_retrieval_is_how_often_the_needle_has_the_largest_weight():
    words = Words()
    text = needle(Vocabulary(10_000, words), 90, 2, 1)
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        n_embd=33, n_layer=1, n_head=3, n_positions=90, vocab_size=500, initializer_range=0.5
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    table = probe_heads(model, words, probes="retrieval", length=90, check=False, seed=1)
    model.set_attn_implementation("eager")
    hits = []
    for trial in text.trials:
        _, query, key = trial.links["retrieval"].unbind(-1)
        with torch.no_grad():
            weights = model(trial.ids, output_attentions=True).attentions[0][0]
        hits.append((weights[:, query].argmax(-1) == key).double())
    expected = torch.cat(hits, -1).mean(-1)
    found = sorted(table, key=lambda row: row.head)
    assert [row.score for row in found] == pytest.approx(expected.tolist())


# Checks, on a circuit of which everything is known


class Circuit(nn.Module):
    """The compiled induction program, which gives the words as logits."""

    def __init__(self, inert):
        super().__init__()
        self.program = program("induction", inert)
        facts = self.program.facts
        self.places = [facts.words.index(value) for value in facts.values]
        self.words = len(facts.words)

    def forward(self, ids):
        logits = torch.zeros(*ids.shape, self.words)
        logits[..., self.places] = self.program(ids)
        return logits


class Marks:
    """As much of a tokenizer as repeated tokens need: the mark at the start."""

    def __init__(self, words):
        self.start, others = words.index("BOS"), words.index("compiler_pad")
        self.all_special_ids = (self.start, others)
        self.some = next(i for i in range(len(words)) if i not in self.all_special_ids)

    def __call__(self, text, **_):
        return {"input_ids": [self.start, *[self.some for _ in text.split()]]}


@pytest.fixture(scope="module")
def circuit():
    model = Circuit(inert=7).eval()
    steps = []
    table = probe_heads(
        model,
        Marks(model.program.facts.words),
        probes=REPEATED,
        length=11,
        texts=3,
        progress=lambda *step: steps.append(step),
    )
    return model, table, steps


def test_a_compiled_circuit_earns_its_names(circuit):
    model, table, _ = circuit
    earned = {row.probe: (row.layer, row.head) for row in table if row.verdict == "earned"}
    assert earned == {"previous token": (1, 0), "induction": (2, 0)}
    for probe in earned:
        row, *others = table.of(probe)
        assert row.score == pytest.approx(1, abs=1e-3)
        assert row.baseline < 0.2
        assert (row.beats, row.random) == (1, 19)
        assert all(other.verdict == "" for other in others)
        assert all(math.isnan(other.effect) for other in others)
    words = len(model.program.facts.words)
    knows, guesses = 1 - math.log(math.e + words - 1), -math.log(words)
    checks = {check.probe: check for check in table.checks}
    for check in table.checks:
        assert check.value == pytest.approx(knows, abs=1e-3)
        assert check.absent == pytest.approx(guesses, abs=1e-3)
        assert check.is_there
    # Without what the token before was, induction selects nothing, and nothing is written. The mean
    # of what the induction head writes favours, a little, the words of the text.
    previous = checks["previous token"]
    assert previous.heads == (("1", 0),)
    assert previous.without == pytest.approx(guesses, abs=1e-2)
    assert checks["induction"].without == pytest.approx(guesses, abs=0.1)
    for check in (previous, checks["induction"]):
        assert check.beats == 1
        assert check.random == pytest.approx([check.value] * len(check.random))
    assert checks["duplicates"].heads == ()


def test_knocked_out_by_zero_the_head_writes_nothing(circuit):
    model, _, _ = circuit
    table = probe_heads(
        model, Marks(model.program.facts.words), probes="induction", length=11, by="zero"
    )
    row = table.of("induction")[0]
    words = len(model.program.facts.words)
    assert row.effect == pytest.approx(1 - math.log(math.e + words - 1) + math.log(words), abs=1e-3)
    assert row.verdict == "earned"


def test_progress_and_what_the_table_gives(circuit):
    _, table, steps = circuit
    assert [name for name, *_ in steps][:2] == [
        "reading: repeated tokens", "knocking out heads: previous token",
    ]  # fmt: skip
    assert all(done <= of for _, done, of in steps)
    assert isinstance(table.of("induction")[:2], ProbeTable)
    assert table[:2].checks == table.checks
    dicts = json.loads(json.dumps(table.to_dicts(), allow_nan=False))
    assert dicts[0]["probe"] == "previous token"
    assert dicts[1]["effect"] is None
    assert table.to_arrow().num_rows == len(table) == 3 * 3 * 8
    assert "earned" in repr(table.sort("score")[:2])
    assert json.dumps([check.to_dict() for check in table.checks], allow_nan=False)
    with pytest.raises(UnknownNameError, match="no probe is called 'sink': previous token, "):
        table.of("sink")


def test_too_few_heads_to_beat():
    model = Circuit(inert=1).eval()
    table = probe_heads(model, Marks(model.program.facts.words), probes=REPEATED, length=11)
    row = table.of("induction")[0]
    assert (row.verdict, row.random) == ("looks so", 4)
    assert row.effect > 0.5


def test_what_a_model_does_not_do_is_not_checked():
    table = probe_heads(gpt2(), probes=REPEATED, length=21)
    assert not any(check.is_there for check in table.checks)
    assert {row.verdict for row in table} <= {"", "looks so"}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_links_to_the_first_token_are_cut(kind, monkeypatch):
    """As the model's own eager code does it, given a mask for each head."""
    monkeypatch.setattr(
        "pellucid.lens.probes.probing._looking",
        lambda _, found: [*found.scores["first token"]][:2],
    )
    model = gpt2() if kind == "gpt2" else llama()
    heads = model.config.num_attention_heads
    table = probe_heads(model, probes="first token", length=17, texts=3, seed=5)
    [trial] = first_token(Vocabulary(VOCABULARY), 17, 3, 5).trials
    [check] = table.checks
    assert check.heads == (("0", 0), ("0", 1))
    model.set_attn_implementation("eager")
    hidden = torch.zeros(3, heads, 17, 17).masked_fill(
        torch.ones(17, 17).triu(1).bool(), -torch.inf
    )
    hidden[:, :2, 1:, 0] = -torch.inf
    attention = model.transformer.h[0].attn if kind == "gpt2" else model.model.layers[0].self_attn
    attention.register_forward_pre_hook(
        lambda _, arguments, options: (arguments, {**options, "attention_mask": hidden}),
        with_kwargs=True,
    )
    with torch.no_grad():
        expected = trial.behaviour(model(trial.ids).logits).mean()
    assert check.without == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("at_once", [2, 50])
@pytest.mark.parametrize("skips", [True, False])
def test_heads_of_a_model_of_our_own_are_knocked_out_side_by_side(at_once, skips, monkeypatch):
    """As if their columns of the output projection were zero, each group in its own items."""
    model = writers.writer()
    experiment = repeated_tokens(vocabulary(), 41, 3, 2)
    [trial] = experiment.trials
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(trial.ids)
    modules = list(seen)
    places = [Place("", layer, modules[layer], head) for layer in range(2) for head in range(3)]
    groups = [places[:1], places[1:3], [places[2], places[3]], []]
    monkeypatch.setattr("pellucid.lens.probes.knock_outs.TOKENS", 41 * at_once)
    if not skips:
        monkeypatch.setattr("pellucid.lens.replays._are_close", lambda *_: False)
    done = []
    found = behaviours_without(
        model,
        experiment,
        groups,
        knocked_out="output",
        by="zero",
        device=torch.device("cpu"),
        progress=done.append,
    )
    assert done == ([1, 2, 4] if at_once > 4 else [0, 1, 2, 2, 3, 4])
    for group, behaviour in zip(groups, found, strict=True):
        changed = copy.deepcopy(model)
        for place in group:
            weight = changed.get_submodule(place.name).output.weight
            size = weight.shape[1] // 3
            weight.data[:, place.head * size : (place.head + 1) * size] = 0
        with torch.no_grad():
            expected = trial.behaviour(changed(trial.ids)).mean().item()
        assert behaviour == pytest.approx(expected, abs=1e-5)
    assert len({round(one, 4) for one in found}) == 4


def test_random_heads_are_of_the_same_layers():
    heads = [Place("", layer, f"h.{layer}", head) for layer in range(3) for head in range(4)]
    group, free = heads[:2] + heads[8:11], heads[2:8] + heads[11:]

    class First:
        def choice(self, of):
            return of[0]

    chosen = alike(group, free, First())
    assert [place.layer for place in chosen] == [0, 0, 2, 1, 1]
    assert len(set(chosen)) == 5
    assert alike(group[:1], [], First()) == []


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"probes": "sinks"}, UnknownNameError, "no probe is called 'sinks': previous token, dup"),
        ({"probes": ["retrieval"]}, ArgumentError, "cannot probe for retrieval: it needs a token"),
        ({"length": 7}, ArgumentError, "length must be 8 or more, got 7"),
        ({"length": 64, "probes": "induction"}, ArgumentError, "length must be 4 to 61 for a voc"),
        ({"texts": 0}, ArgumentError, "texts must be 1 or more, got 0"),
        ({"most": 0}, ArgumentError, "most must be 1 or more, got 0"),
        ({"controls": 18}, ArgumentError, "controls must be 19 or more: fewer cannot show"),
        ({"tokenizer": 3}, TypeMismatchError, "tokenizer must make ids of a text, got int"),
    ],
)
def test_what_cannot_be(options, error, told):
    with pytest.raises(error, match=told):
        probe_heads(gpt2(), **{"length": 21, **options})


def test_models_that_are_no_decoders():
    with pytest.raises(TypeMismatchError, match=r"model must be a torch.nn.Module, got str"):
        probe_heads("gpt2")
    with pytest.raises(ArgumentError, match=r"call model.eval"):
        probe_heads(gpt2().train())
    with pytest.raises(ArgumentError, match="it must make logits"):
        probe_heads(gpt2().transformer)
    config = transformers.BertConfig(hidden_size=33, num_attention_heads=3, **SIZES)
    with pytest.raises(ArgumentError, match="whose tokens see none that follow; BertForMasked"):
        probe_heads(transformers.BertForMaskedLM(config).eval())


def test_what_cannot_be_run_is_said():
    table = probe_heads(gpt2(), length=21, check=False)
    reason = "it needs a tokenizer"
    assert table.skipped == dict.fromkeys(("retrieval", "name mover", "S-inhibition"), reason)
    with pytest.raises(ArgumentError, match="3 needed"):
        names(Vocabulary(writers.VOCABULARY, writers.tokenizer()), 1, 0)
    with pytest.raises(ArgumentError, match=r"length must be \d+ or more for the needle"):
        needle(Vocabulary(10_000, Words()), 20, 1, 0)


def test_a_tokenizer_that_knows_no_such_words_is_told():
    class Few(Words):
        def __call__(self, text, **options):
            return super().__call__("and" if text.startswith("and") else "", **options)

    for make in (needle, first_token):
        with pytest.raises(ArgumentError, match="the tokenizer makes no tokens of 'The "):
            make(Vocabulary(100, Few()), 100, 1, 0)
    with pytest.raises(ArgumentError, match="0 of 36 names are one token each"):
        names(Vocabulary(100, Few()), 1, 0)
    with pytest.raises(ArgumentError, match="the tokenizer makes no tokens of 'and'"):
        Vocabulary(100, lambda text, **_: {"input_ids": []})

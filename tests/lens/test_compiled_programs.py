"""Programs compiled to weights: what is seen, cut and explained is what the program says."""

import pytest
import torch
from tests.compiled_programs import NAMES, program

import pellucid
from pellucid import lens

NEAR = 1e-3
"""How far a compiled selector may be from a hard one: its scores are 100, not infinite."""


def returned(model, output):
    """What a program returns for each token but the first: values, or None where all are 0."""
    values = model.facts.values
    if values is None:
        return output[:, 1:, 0].tolist()
    best = output[:, 1:].max(-1)
    return [
        [values[place] if height > 0.5 else None for place, height in zip(*row, strict=True)]
        for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def same(found, expected):
    """Whether values are those of the program, where it returns any."""
    pairs = [
        pair
        for rows in zip(found, expected, strict=True)
        for pair in zip(*rows, strict=True)
        if pair[1] is not None
    ]
    return bool(pairs) and all(
        one == other if isinstance(other, str) else one == pytest.approx(other, abs=NEAR)
        for one, other in pairs
    )


def pattern(facts, head):
    """(texts, length, 1 + length): the weights that a selector means, BOS the first key."""
    selected = facts.selected[head].double()
    none = (selected.sum(-1, keepdim=True) == 0).double()
    first = torch.ones_like(none) if facts.functions[head] == "width" else none
    weights = torch.cat([first, selected], -1)
    return weights / weights.sum(-1, keepdim=True)


def run(model, *edits):
    """The output under edits, each the arguments of `knock_out`."""
    with torch.no_grad(), pellucid.intervene(model) as edit:
        for arguments, options in edits:
            edit.knock_out(*arguments, **options)
        return model(model.facts.texts)


def cut(*arguments, **options):
    return arguments, options


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_the_program(name):
    model = program(name, inert=2)
    assert same(returned(model, model(model.facts.texts)), model.facts.results)


@pytest.mark.parametrize("name", NAMES)
def test_a_watch_sees_what_selectors_select(name):
    model = program(name)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(model.facts.texts)
    for head in model.facts.functions:
        layer, number = map(int, head.split("."))
        weights = seen[f"layers.{layer}.attention"].dense()[:, number, 1:].double()
        expected = pattern(model.facts, head)
        assert (weights - expected).abs().max() < NEAR


def test_heads_are_called_what_they_are():
    def roles(name):
        model = program(name)
        with torch.no_grad(), pellucid.watch(model) as seen:
            model(model.facts.texts)
        return {f"{row.layer}.{row.head}": row.role for row in lens.heads(seen)}

    assert roles("previous")["1.0"] == "previous token"
    assert roles("neighbours")["1.0"] == "previous token"
    assert roles("neighbours")["1.1"] == "next token"
    assert roles("induction") == {"0.0": "broad", "1.0": "previous token", "2.0": "induction"}


@pytest.mark.parametrize("name", NAMES)
def test_heads_that_a_program_does_not_use_change_nothing(name):
    model = program(name, inert=2)
    facts = model.facts
    unused = [
        cut(layer, head)
        for layer in range(facts.layers)
        for head in range(facts.heads + 2)
        if f"{layer}.{head}" not in facts.functions
    ]
    assert len(unused) >= 2 * facts.layers
    with torch.no_grad():
        plain = model(facts.texts)
    assert (run(model, *unused) - plain).abs().max() < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_without_a_head_that_it_uses_a_program_returns_something_else(name):
    model = program(name)
    for head in model.facts.functions:
        if (name, head) != ("reverse", "0.0"):  # the length of these texts is what 0 means, below
            layer, number = map(int, head.split("."))
            found = returned(model, run(model, cut(layer, number)))
            assert not same(found, model.facts.results), head


@pytest.mark.parametrize("name", ["previous", "neighbours", "induction", "reverse", "sort"])
def test_without_its_last_aggregation_a_program_returns_nothing(name):
    model = program(name)
    layer, number = map(int, max(model.facts.functions).split("."))
    rows = returned(model, run(model, cut(layer, number)))
    assert {value for row in rows for value in row} == {None}


def test_without_their_length_texts_are_reversed_as_if_they_were_longest():
    """The head gives 1 / (1 + length), and nothing, 0, is read as the smallest that there is."""
    model = program("reverse")
    short = model.facts.texts[:, :-1]
    words = [[model.facts.words[number] for number in text[1:]] for text in short.tolist()]
    with torch.no_grad():
        assert returned(model, model(short)) == [text[::-1] for text in words]
        with pellucid.intervene(model) as edit:
            edit.knock_out(0, 0)
            found = returned(model, model(short))
    assert found == [[None, *text[:0:-1]] for text in words]


def test_induction_needs_the_token_before():
    """Without it, the second head finds no match and looks at the first token."""
    model = program("induction")
    facts = model.facts
    with torch.no_grad(), pellucid.intervene(model) as edit, pellucid.watch(model) as seen:
        edit.knock_out(1, 0)
        output = model(facts.texts)
    weights = seen["layers.2.attention"].dense()[:, 0]
    assert weights[..., 0] == pytest.approx(1, abs=NEAR)
    assert {value for row in returned(model, output) for value in row} == {None}


def test_a_token_that_nobody_may_look_at_does_not_count():
    """The share of "a" among the tokens so far, without the third."""
    model = program("share")
    facts, gone = model.facts, 3
    is_a = (facts.texts[:, 1:] == facts.words.index("a")).double()
    kept = torch.ones_like(is_a)
    kept[:, gone - 1] = 0
    seen = kept.cumsum(1)
    expected = ((is_a * kept).cumsum(1) / seen).tolist()
    assert same(returned(model, run(model, cut(1, 0, keys=gone))), expected)
    all_seen = torch.ones_like(is_a).cumsum(1)
    expected = ((is_a * kept).cumsum(1) / all_seen).tolist()
    dropped = run(model, cut(1, 0, keys=gone, renormalize=False))
    assert same(returned(model, dropped), expected)


def test_a_count_without_one_of_those_counted():
    """Of tokens that occur more than once, one is counted less where its link is cut."""
    model = program("histogram")
    counts = torch.tensor(model.facts.results)
    alike = model.facts.selected["0.0"]
    tried = 0
    for item, query, key in alike.nonzero().tolist():
        if query != key and tried < 11:
            tried += 1
            output = run(model, cut(0, 0, queries=query + 1, keys=key + 1, items=item))
            expected = counts.clone()
            expected[item, query] -= 1
            assert returned(model, output) == expected.tolist()
    assert tried == 11


def test_a_link_of_one_token_changes_one_token():
    model = program("previous")
    output = run(model, cut(1, 0, queries=4, keys=3, items=[1, 3]))
    expected = [list(row) for row in model.facts.results]
    found = returned(model, output)
    for item in (1, 3):
        assert expected[item][3] is not None
        assert found[item][3] is None
        expected[item][3] = None
    assert same(found, expected)


def patched(model, layer, head, part):
    """What a program returns if a head has something from the run on the next text of the batch."""
    facts = model.facts
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        model(facts.texts.roll(-1, 0))
    with torch.no_grad(), pellucid.intervene(model) as edit:
        edit.patch(seen, layer, head, part=part)
        return returned(model, model(facts.texts))


@pytest.mark.parametrize(
    ("name", "head", "part", "follows"),
    [
        ("previous", 0, "output", "next"),
        ("previous", 0, "value", "next"),
        ("previous", 0, "pattern", "own"),  # where it looks does not depend on the text
        ("previous", 0, "key", "own"),
        ("share", 0, "value", "next"),
        ("share", 0, "query", "own"),
        ("histogram", 0, "pattern", "next"),  # only where it looks does
        ("histogram", 0, "value", "own"),
    ],
)
def test_what_is_patched_comes_from_the_other_text(name, head, part, follows):
    model = program(name)
    results = model.facts.results
    next_ones = results[1:] + results[:1]
    layer = int(next(iter(model.facts.functions)).split(".")[0])
    found = patched(model, layer, head, part)
    assert same(found, next_ones if follows == "next" else results)
    assert not same(found, results if follows == "next" else next_ones)


def test_induction_with_the_tokens_before_of_another_text():
    """It then looks at what comes where the other text had the token before."""
    model = program("induction")
    facts = model.facts
    found = patched(model, 1, 0, "output")
    tried = 0
    for text, other, row in zip(
        facts.texts.tolist(), facts.texts.roll(-1, 0).tolist(), found, strict=True
    ):
        for place in range(1, len(text)):
            matches = [j for j in range(2, place + 1) if other[j - 1] == text[place]]
            if len(matches) < 2:  # of several, the mean is written
                expected = facts.words[text[matches[0]]] if matches else None
                assert row[place - 1] == expected
                tried += bool(matches)
    assert tried > 4


def test_why_induction_looks_there():
    """The score is the query's own token times what the first head brought to the key."""
    model = program("induction")
    facts = model.facts
    stream = lens.residual_stream(model)
    with stream:
        model(facts.texts)
    item, query, key = (facts.selected["2.0"].nonzero()[0] + torch.tensor([0, 1, 1])).tolist()
    found = lens.why(stream, 2, 0, query, key, item=item)
    assert found.is_exact
    assert found.weight == pytest.approx(1, abs=NEAR)
    [first, *others] = found.top(3)
    assert (first.query.kind, first.key.kind, first.key.layer) == (
        "token embedding", "attention", 1,
    )  # fmt: skip
    assert first.amount == pytest.approx(found.score, rel=NEAR)
    assert all(abs(other.amount) < NEAR * found.score for other in others)


def test_why_the_previous_token_is_found():
    """The score comes from positions alone: the query's, less one, is that of the key."""
    model = program("previous")
    stream = lens.residual_stream(model)
    with stream:
        model(model.facts.texts)
    found = lens.why(stream, 1, 0, 4, 3)
    assert found.is_exact
    by_key = {source.kind: amount for source, amount in found.of_key().items()}
    assert by_key["position embedding"] == pytest.approx(found.score, rel=NEAR)
    by_query = {source.kind: amount for source, amount in found.of_query().items()}
    assert by_query["feed-forward"] == pytest.approx(found.score, rel=NEAR)

"""The arithmetic of the page is the library's: its steps, its sentences, and what it is given."""

import atexit
import json
import math
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Locator, Page
from torch import Tensor

from pellucid.attention import attention_weights, masks
from pellucid.attention.reference import stages
from pellucid.common.wording import plain
from pellucid.errors import OutOfRangeError
from pellucid.lessons.examples import walk_example
from pellucid.viewer import lesson
from tests.viewer import recordings
from tests.viewer.browser import is_shown, percents
from tests.viewer.files import saved, table
from tests.viewer.made_heads import MADE

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="needs node, which runs the page's modules")
EXAMPLES = {one["name"]: one["lesson"] for one in lesson.examples()["examples"]}
CLOSE = 1e-12
"""The largest relative error against float64."""


@cache
def started() -> subprocess.Popen[str]:
    """A process that answers line by line: to start one costs more than most answers."""
    assert NODE is not None
    program = str(Path(__file__).parent / "page" / "ask.mjs")
    node = subprocess.Popen(
        [NODE, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    atexit.register(ended, node)
    return node


def ended(node: subprocess.Popen[str]) -> None:
    node.communicate()


def ask(module: str, *calls: list[Any]) -> list[Any]:
    """What functions of one of the page's modules answer."""
    path = files("pellucid.viewer") / "page" / f"{module}.js"
    node = started()
    assert node.stdin is not None
    assert node.stdout is not None
    asked = json.dumps({"module": str(path), "calls": calls}, allow_nan=False)
    node.stdin.write(f"{asked}\n")
    node.stdin.flush()
    told: dict[str, Any] = json.loads(node.stdout.readline())
    assert "error" not in told, told["error"]
    answers: list[Any] = told["answers"]
    return answers


def tensor(numbers: list[float | None], nothing: float = -math.inf) -> Tensor:
    return torch.tensor([nothing if x is None else x for x in numbers], dtype=torch.float64)


# The arithmetic.


@dataclass
class Case:
    """One query of a head."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    softcap: float | None = None
    bias: Tensor | None = None
    visible: Tensor | None = None
    sink: float | None = None
    temperature: float = 1.0

    def call(self) -> list[Any]:
        told = {
            "query": self.query.tolist(),
            "keys": self.key.tolist(),
            "values": self.value.tolist(),
            "scale": self.scale,
            "softcap": self.softcap,
            "bias": None if self.bias is None else self.bias.tolist(),
            "visible": None if self.visible is None else self.visible.tolist(),
            "sink": self.sink,
            "temperature": self.temperature,
        }
        return ["attend", told]

    def check(self, found: dict[str, Any]) -> None:
        """Against the reference, in which temperature is another scale of everything."""
        tau = self.temperature
        right = stages(
            self.query[None, None],
            self.key[None],
            self.value[None],
            None if self.visible is None else self.visible[None, None],
            bias=None if self.bias is None else self.bias[None, None] / tau,
            scale=self.scale / tau,
            softcap=None if self.softcap is None else self.softcap / tau,
            sinks=None if self.sink is None else tensor([self.sink / tau]),
        )
        size = (self.query.abs() * self.key.abs()).sum(-1).max().item()
        largest = size * abs(self.scale) + (
            0 if self.bias is None else self.bias.abs().max().item()
        )
        for name, times, most in (
            ("scores", 1.0, size),
            ("scaled", tau, size * abs(self.scale)),
            ("capped", tau, size * abs(self.scale)),
            ("masked", tau, largest),
        ):
            numbers = getattr(right, name)[0, 0] * times
            torch.testing.assert_close(
                tensor(found[name]), numbers, rtol=CLOSE, atol=CLOSE * most, msg=name
            )
        # An error of a logit is a relative one of its weight.
        close = CLOSE * (1 + max(largest, abs(self.sink or 0)) / tau)
        weights = tensor(found["weights"])
        torch.testing.assert_close(weights, right.weights[0, 0], rtol=close, atol=1e-300)
        most = self.value.abs().max().item()
        torch.testing.assert_close(
            tensor(found["context"]), right.context[0, 0], rtol=close, atol=close * most
        )
        whole = weights.sum().item() + found["sinkWeight"]
        hidden = self.visible is not None and not self.visible.any() and self.sink is None
        assert whole == pytest.approx(0 if hidden else 1, abs=1e-12)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    def floats(most: float) -> st.SearchStrategy[float]:
        return st.floats(-most, most, allow_subnormal=False)

    def drawn(*shape: int) -> Tensor:
        count = math.prod(shape)
        one = floats(8)
        numbers = draw(st.lists(one, min_size=count, max_size=count))
        return torch.tensor(numbers, dtype=torch.float64).reshape(shape)

    keys, dim, value_dim = (draw(st.integers(1, 5)) for _ in range(3))
    flags = st.lists(st.booleans(), min_size=keys, max_size=keys)
    return Case(
        query=drawn(dim),
        key=drawn(keys, dim),
        value=drawn(keys, value_dim),
        scale=draw(st.floats(0.01, 4)),
        softcap=draw(st.none() | st.floats(0.5, 50)),
        bias=drawn(keys) if draw(st.booleans()) else None,
        visible=torch.tensor(draw(flags)) if draw(st.booleans()) else None,
        sink=draw(st.none() | floats(20)),
        temperature=draw(st.floats(0.1, 10)),
    )


@needs_node
@settings(max_examples=20)
@given(st.lists(cases(), min_size=1, max_size=20))
def test_steps_are_those_of_the_reference(some: list[Case]) -> None:
    for case, found in zip(some, ask("arithmetic", *(one.call() for one in some)), strict=True):
        case.check(found)


@needs_node
def test_large_scores_overflow_nothing() -> None:
    key = torch.tensor([[3e3], [-3e3], [2.99e3]], dtype=torch.float64)
    case = Case(torch.tensor([5e2]).double(), key, key, scale=1.0)
    (found,) = ask("arithmetic", case.call())
    assert found["weights"] == [1, 0, 0]
    assert found["context"] == [3e3]


@needs_node
def test_what_a_hidden_key_holds_never_matters() -> None:
    told = {"query": [1], "keys": [[2], [None], [3]], "scale": 1, "values": [[5], [None], [7]]}
    (found,) = ask("arithmetic", ["attend", told | {"visible": [True, False, False]}])
    assert found["weights"] == [1, 0, 0]
    assert found["context"] == [5]


@needs_node
@pytest.mark.parametrize(
    ("rule", "mask"),
    [("causal", masks.causal(2)), ("window", masks.window(left=2, right=0, offset=2))],
)
def test_masks_are_those_of_the_library(rule: str, mask: masks.Mask) -> None:
    queries, keys = 5, 7
    rows = ask("arithmetic", *(["seen", rule, query, keys, 2, 3] for query in range(queries)))
    query, key = torch.zeros(1, queries, 1), torch.zeros(1, keys, 1)
    weights = attention_weights(query, key, mask).dense()[0]
    assert torch.equal(torch.tensor(rows), weights > 0)
    assert ask("arithmetic", ["seen", "none", 0, keys, 2, 3]) == [None]


# The examples.


def test_the_examples_are_those_of_the_notes() -> None:
    assert list(EXAMPLES) == [
        "poem",
        "journey",
        "journey-linear",
        "bright",
        "journey-linear-causal",
        "lookup",
    ]
    json.dumps(lesson.examples(), allow_nan=False)
    poem = EXAMPLES["poem"]
    assert poem["tokens"] == ["write", "a", "poem"]
    assert poem["tokens"][poem.get("speaker", 0)] == "write"
    W_query = torch.tensor(poem["W_query"])
    torch.testing.assert_close(
        W_query, torch.tensor([[0.5406, -0.1657], [0.5869, 0.6496]]), atol=5e-5, rtol=0
    )
    assert EXAMPLES["bright"]["about"][-1].endswith("only the shapes matter here.")


# As the notes and their published companions print them, at four decimals.
PRINTED = {
    ("poem", 0): ([0.3573, 0.4011, 0.2416], [1.0100, 1.0641]),
    ("journey", 1): ([0.1500, 0.2264, 0.2199, 0.1311, 0.0906, 0.1820], [0.3061, 0.8210]),
    ("journey-linear", 2): (None, [-0.0749, 0.0702]),
    ("journey-linear-causal", 5): ([0.1935, 0.1663, 0.1666, 0.1542, 0.1666, 0.1529], None),
    ("journey-linear-causal", 2): ([0.3800, 0.3097, 0.3103, 0, 0, 0], None),
}


@needs_node
@pytest.mark.parametrize(("name", "query"), PRINTED, ids=str)
def test_the_notes_numbers(name: str, query: int) -> None:
    found, weights, context = of_example(name, query), *PRINTED[name, query]
    if weights is not None:
        torch.testing.assert_close(tensor(found["weights"]), tensor(weights), atol=6e-5, rtol=0)
    if context is not None:
        torch.testing.assert_close(tensor(found["context"]), tensor(context), atol=6e-5, rtol=0)


def of_example(name: str, query: int) -> dict[str, Any]:
    """All steps of one query, as the page makes them."""
    one = EXAMPLES[name]
    matrices = [one[f"W_{role}"] for role in ("query", "key", "value")]
    roles = [[["project", x, W] for x in one["embeddings"]] for W in matrices]
    count = len(one["tokens"])
    flat = ask("arithmetic", *(call for role in roles for call in role))
    queries, keys, values = (flat[i * count : (i + 1) * count] for i in range(3))
    visible = [key <= query for key in range(count)] if "mask" in one else None
    told = {"query": queries[query], "keys": keys, "values": values, "visible": visible}
    (found,) = ask("arithmetic", ["attend", told | {"scale": len(queries[0]) ** -0.5}])
    return {**found, "queries": queries}


@needs_node
def test_looking_up_is_attention_too() -> None:
    one = EXAMPLES["lookup"]
    told = {"query": one["query"][one["speaker"]], "keys": one["key"], "values": one["value"]}
    sharp = [["attend", told | {"scale": beta}] for beta in (0, 1, 3, 10, 30, 100, 300)]
    answers = [found["context"] for found in ask("arithmetic", *sharp)]
    (walked,) = (m for m in walk_example("lookup").steps[-1].matrices if m.name == "answer")
    torch.testing.assert_close(torch.tensor(answers), torch.tensor(walked.values))


@needs_node
@pytest.mark.parametrize(
    ("name", "weights", "query"),
    [
        ("poem", "linear", 0),
        ("journey", "parameters", 1),
        ("journey", "linear", 3),
        ("bright", "parameters", 4),
    ],
)
def test_the_page_says_what_the_lessons_say(name: str, weights: str, query: int) -> None:
    entry = f"{name}-linear" if (name, weights) == ("journey", "linear") else name
    one, found = EXAMPLES[entry], of_example(entry, query)
    names = [f"'{token}'" for token in one["tokens"]]
    who = {"name": names[query], "own": query, "names": names}
    scale = len(found["queries"][0]) ** -0.5
    said = ask(
        "sentences",
        ["vectors", "query", found["queries"], names],
        ["sentencesOf", who, {"then": ["score", found["scores"]]}],
        ["sentencesOf", who, {"then": ["scale", found["scores"], scale, len(found["queries"][0])]}],
        ["sentencesOf", who, {"then": ["softmax", found["weights"]]}],
        ["sentencesOf", who, {"then": ["mix", found["weights"], found["context"]]}],
    )
    walk = walk_example(name, weights=weights, query=one["tokens"][query])
    steps = {step.name: step.sentence for step in walk.steps}
    for step, sentence in zip(("query", "score", "scale", "softmax", "mix"), said, strict=True):
        plain = sentence.replace("\u00a0%", "%").replace("−", "-")
        assert steps[step].startswith(plain), step


@needs_node
def test_what_there_is_to_say_of_rare_numbers() -> None:
    who = {"name": "'a'", "own": None, "names": ["'b'", "'c'"]}
    hidden = ask(
        "sentences",
        ["sentencesOf", who, {"then": ["softmax", [0, 0]]}],
        ["sentencesOf", who, {"then": ["softmax", [0.996, 0.004]]}],
        ["sentencesOf", who, {"then": ["softmax", [0.3, 0.3], [["all other tokens", 0.4]]]}],
        ["decimal", -0.001],
        ["quote", ["the", "sea", "the"], 2, 5],
    )
    assert hidden == [
        "'a' gives its attention to no token.",
        "'a' gives >99\u00a0% to 'b'.",
        "'a' gives 30\u00a0% to 'b', 30\u00a0% to 'c' and 40\u00a0% to all other tokens.",
        "0.00",
        "'the' (7)",
    ]


# A head of a recording.


def shares(found: dict[str, Any], i: int) -> tuple[list[Any], int]:
    """The call that gives a query's weights."""
    told = {
        "query": found["query"][i],
        "keys": found["key"],
        "values": found["value"],
        "bias": None if found["bias"] is None else found["bias"][i],
        "visible": None if found["visible"] is None else found["visible"][i],
        "rest": None if found["rest"] is None else found["rest"][i],
        "restValue": None if found["rest_value"] is None else found["rest_value"][i],
        **{name: found[name] for name in ("scale", "softcap", "sink")},
    }
    return ["attend", told], found["first"] + i


@needs_node
@pytest.mark.parametrize("name", MADE)
def test_the_weights_of_a_head_are_the_librarys(name: str) -> None:
    seen, record = MADE[name].record()
    item, head = 1, 5
    size = record.shape[-1]
    found = plain(lesson.head(seen, record, item, head, token=size - 31 if size > 31 else 0))
    assert len(found["tokens"]) == len(found["query"]) == min(size, lesson.MOST)
    assert (found["rest"] is None) == (size <= lesson.MOST)
    calls, queries = zip(*(shares(found, i) for i in range(len(found["query"]))), strict=True)
    keys = slice(found["first_key"], found["first_key"] + len(found["key"]))
    weights = record.weights[item, head].double()
    value = record.value
    assert value is not None
    for query, answer in zip(queries, ask("arithmetic", *calls), strict=True):
        right = weights[query]
        torch.testing.assert_close(tensor(answer["weights"]), right[keys], atol=1e-6, rtol=1e-5)
        outside = right.sum() - right[keys].sum()
        assert answer["restWeight"] == pytest.approx(outside.item(), abs=1e-6)
        context = right @ value[item, head // 2].double()
        torch.testing.assert_close(tensor(answer["context"]), context, atol=1e-5, rtol=1e-5)


def test_what_is_shown_lies_around_a_token() -> None:
    seen, record = MADE["part"].record()
    for token, first in ((0, 0), (40, 8), (130, 131 - 64)):
        found = lesson.head(seen, record, 0, 0, token)
        assert found["first"] == found["first_key"] == first
        assert found["first"] <= token < found["first"] + 64
        assert found["tokens"][0] == f"#{first}"


def test_cross_attention_has_keys_of_another_sequence() -> None:
    seen = recordings.both()
    (record, *_) = (one for one in seen.latest() if one.is_cross)
    found = lesson.head(seen, record, 0, 2)
    assert found["offset"] is None
    assert (len(found["tokens"]), len(found["keys"])) == (recordings.TARGET, recordings.SOURCE)
    assert all(isinstance(word, str) and word.strip() for word in found["keys"])
    assert found["value"] is None


@pytest.mark.parametrize(("item", "head", "token"), [(2, 0, 0), (0, 6, 0), (0, 0, 13), (-1, 0, 0)])
def test_what_there_is_not(item: int, head: int, token: int) -> None:
    seen, record = MADE["whole"].record()
    with pytest.raises(OutOfRangeError, match=r"there is no (text|head|token)"):
        lesson.head(seen, record, item, head, token)


# The page.


def cell(page: Page, name: str) -> Locator:
    """A number; where it stands more than once, the first."""
    return page.locator(f"td[data-cell='{name}']").first


def computed(page: Page) -> Locator:
    return page.get_by_role("group", name="How the number is computed")


def said(page: Page) -> str:
    return computed(page).inner_text()


def weights_shown(page: Page, count: int) -> list[str]:
    return [cell(page, f"weight.{key}").inner_text() for key in range(count)]


def is_told(text: str, weight: float) -> bool:
    """Whether a weight is shown as it is: a dash where the key is hidden."""
    if text == "–":
        return weight == 0
    if text.startswith("<"):
        return 0 < weight < 0.001
    (percentage,) = percents(text)
    return is_shown(percentage, weight)


def lit(page: Page) -> set[str]:
    names: list[str] = page.locator("td.lit").evaluate_all(
        "(all) => all.map((one) => one.dataset.cell)"
    )
    return set(names)


def test_the_page_opens_with_the_poem(shown, opened):
    page = opened(shown("decoder"), "lesson")
    assert weights_shown(page, 3) == ["35.7 %", "40.1 %", "24.2 %"]
    main = page.get_by_role("main").inner_text().replace("\u00a0", " ")
    assert "'write' gives 36 % of its attention to itself, 40 % to 'a' and 24 % to 'poem'." in main
    assert 'The word "write" is 36 % similar to itself.' in main
    assert cell(page, "context.1").inner_text() == "1.0641"
    assert "torch.manual_seed(42)" in page.get_by_role("status").inner_text()


def test_a_number_lights_what_it_is_made_of(shown, opened):
    page = opened(shown("decoder"), "lesson", "example=poem")
    cell(page, "score.2").hover()
    assert said(page) == ("score of 'poem' = 0.7621 × (−0.9914) + (−0.0428) × (−2.4152) = −0.6523")
    assert lit(page) == {"q.0", "q.1", "K.2.0", "K.2.1"}
    cell(page, "weight.0").hover()
    assert said(page) == "weight of 'write' itself = 0.8906 / 2.4929 = 0.3573 = 35.7 %"
    assert lit(page) == {"exp.0", "sum"}
    cell(page, "K.1.0").hover()
    assert lit(page) == {"X.1.0", "X.1.1", "Wk.0.0", "Wk.1.0"}


@pytest.mark.parametrize("example", ["poem", pytest.param("journey", marks=pytest.mark.slow)])
def test_every_number_says_where_it_comes_from(shown, opened, example):
    """By arrow keys alone, each table a stop of its own."""
    page = opened(shown("decoder"), "lesson", f"example={example}")
    explained = computed(page).element_handle()
    for grid in page.get_by_role("main").get_by_role("grid").all():
        grid.locator("td[tabindex='0']").focus()
        names, seen = grid.locator("td[data-cell]"), set()
        rows = grid.get_by_role("row").count()
        for _ in range(rows):
            page.keyboard.press("ArrowUp")
        for _ in range(rows):
            page.keyboard.press("Home")
            name = before = None
            while name is None or name != before:  # at the end of a row an arrow leads nowhere
                before = name
                place = page.locator("td.pointed:focus")
                text, name, told = place.evaluate(
                    "(one, other) => [one.innerText, one.dataset.cell, other.innerText]", explained
                )
                assert text in told
                seen.add(name)
                page.keyboard.press("ArrowRight")
            page.keyboard.press("ArrowDown")
        assert len(seen) == names.count()


def test_sliders_compute_anew_and_reset_takes_it_back(shown, opened):
    page = opened(shown("decoder"), "lesson", "example=poem")
    before = weights_shown(page, 3)
    page.get_by_role("button", name="Scale 1", exact=True).click()
    scores = torch.tensor([-0.0990, 0.0648, -0.6523])
    assert weights_shown(page, 3) == [f"{100 * x:.1f} %" for x in scores.softmax(0)]
    page.get_by_role("slider", name="Temperature").fill("-1")
    assert weights_shown(page, 3) == [f"{100 * x:.1f} %" for x in (scores * 2).softmax(0)]
    page.get_by_role("radio", name="causal").click()
    assert weights_shown(page, 3) == ["100.0 %", "–", "–"]
    assert cell(page, "masked.1").inner_text() == "−∞"
    opened.settle(page)
    page.wait_for_url("**scale=1&temperature=0.5&mask=causal")
    page.get_by_role("button", name="Back to the numbers of the example").click()
    assert weights_shown(page, 3) == before
    slider = page.get_by_role("slider", name="Window size in tokens")
    slider.fill("1")
    assert weights_shown(page, 3) == ["100.0 %", "–", "–"]


def test_a_slider_leaves_its_marks_by_keyboard(shown, opened):
    page = opened(shown("decoder"), "lesson", "example=poem")
    slider = page.get_by_role("slider", name="Temperature")
    slider.focus()
    told = []
    for _ in range(4):
        page.keyboard.press("ArrowRight")
        told.append(slider.get_attribute("aria-valuetext"))
    assert len(set(told)) == 4, told


def test_arrow_keys_choose_another_query(shown, opened):
    page = opened(shown("decoder"), "lesson", "example=journey-linear-causal")
    last = ["19.4 %", "16.6 %", "16.7 %", "15.4 %", "16.7 %", "15.3 %"]
    assert [one.replace("19.3", "19.4") for one in weights_shown(page, 6)] == last
    page.get_by_role("radio", name="step").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert page.get_by_role("radio", name="starts").get_attribute("aria-checked") == "true"
    assert weights_shown(page, 6) == ["38.0 %", "31.0 %", "31.0 %", "–", "–", "–"]


@pytest.mark.parametrize(("name", "layer", "token"), [("decoder", 1, 37), ("long", 1, 500)])
def test_the_weights_of_a_recording(shown, opened, name, layer, token):
    of = shown(name)
    page = opened(of, "lesson", f"layer={layer}&head=2&token={token}")
    right = of.weights(layer, 2)[token]
    first = max(0, min(token - lesson.MOST // 2, len(right) - lesson.MOST))
    for place, key in enumerate(range(first, min(first + lesson.MOST, len(right)))):
        assert is_told(cell(page, f"weight.{place}").inner_text(), right[key].item()), key
    if name == "long":
        rest = right.sum() - right[first : first + lesson.MOST].sum()
        (percentage,) = percents(cell(page, "rest-weight").inner_text())
        assert float(percentage) / 100 == pytest.approx(rest.item(), rel=0.01)
        page.get_by_role("radio", name="none").click()
        assert cell(page, "rest-weight").inner_text() == "–"
        assert "only the 64 tokens shown here take part" in page.get_by_role("main").inner_text()


def test_one_goes_through_a_long_text(shown, opened):
    page = opened(shown("long"), "lesson", "layer=0&head=0&token=500")
    page.get_by_role("button", name="Later tokens").click()
    opened.settle(page)
    tokens = page.get_by_role("radiogroup", name="The token that attends").get_by_role("radio")
    assert tokens.count() == lesson.MOST
    assert "token=532&around=532" in page.url
    tokens.nth(3).click()
    opened.settle(page)
    assert "token=503&around=532" in page.url
    page.reload()
    opened.settle(page)
    assert tokens.nth(3).get_attribute("aria-checked") == "true"


def test_long_vectors_are_shown_whole_when_asked(shown, opened):
    of = shown("decoder")
    page = opened(of, "lesson", "layer=0&head=1&token=3")
    dim = of.seen[0].latest()[0].query.shape[-1]
    rows = page.get_by_role("grid", name="The query beside the keys")
    more = page.get_by_role("button", name=f"Show all {dim} numbers")
    if dim > 8:
        assert rows.locator("td[data-cell^='q.']").count() == 6
        more.first.click()
    assert rows.locator("td[data-cell^='q.']").count() == dim


def test_its_numbers_are_saved_as_they_are_shown(shown, opened):
    page = opened(shown("decoder"), "lesson", "example=poem&scale=1")
    found = table(saved(page, "CSV"))
    rows = {(row["step"], row["name"]): float(row["number"]) for row in found}
    assert rows["scale", "scaled.2"] == rows["score", "score.2"] == pytest.approx(-0.6523, abs=1e-4)
    assert sum(rows["softmax", f"weight.{key}"] for key in range(3)) == pytest.approx(1)

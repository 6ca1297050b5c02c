"""Weights that a page computes itself are the library's, as far as float16 goes."""

import json
import math

import pytest
import torch

from pellucid.attention import masks, reference
from pellucid.lens.pieces import Pieces
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.visibility import Visibility
from pellucid.viewer import tile_pyramid
from pellucid.viewer.catalogue import Catalogue, Place, Volume
from pellucid.viewer.computed_heads import ComputedHeads, bias_of, halves, rounded, runs_of
from pellucid.viewer.html_export import exported
from tests.viewer.files import kept, read_by_page

HEADS, QUERIES, KEYS, DIM = 3, 97, 101, 7
LONG, LONG_DIM = 1031, 37
U = 2.0**-11
"""The unit roundoff of float16."""
ROUNDING = 1e-5
"""What float32 adds, as a share."""
CPU = torch.device("cpu")
DRAW = torch.Generator().manual_seed(11)


def normal(*sizes):
    return torch.randn(*sizes, generator=DRAW)


def record(name, mask=None, *, batch=1, kv_heads=HEADS, sizes=(QUERIES, KEYS, DIM), **options):
    queries, keys, dim = sizes
    return Record(
        name=name,
        queries=Pieces(3 * normal(batch, HEADS, queries, dim)),
        keys=Pieces(normal(batch, kv_heads, keys, dim)),
        visibility=Visibility(mask, None, (queries, keys), CPU),
        latest_queries=queries,
        **options,
    )


def relative(values):
    """(1, 1, QUERIES, KEYS) of a value for each distance."""
    distances = torch.arange(KEYS) - torch.arange(QUERIES)[:, None] + QUERIES - 1
    return [Pieces(values[distances].expand(1, HEADS, -1, -1))]


COMPILES = """async () => {
  let made = 0;
  const { Instance } = WebAssembly;
  WebAssembly.Instance = class extends Instance { constructor(of) { super(of); made += 1; } };
  (await import("./page/computed_heads.js")).answerWithWeights(new MessageChannel().port1);
  return made;
}"""
CANCELS = """async (text) => {
  const { openOfflineSource } = await import("./page/offline_source.js");
  const { source } = await openOfflineSource({ textContent: text });
  const one = new AbortController();
  const failed = source.numbers("column/0/0/1/5", one.signal).catch((error) => error.name);
  const other = source.numbers("column/0/0/1/7");
  one.abort();
  return [await failed, (await other).shape];
}"""
MASKS = {
    "causal": masks.causal(offset=4),
    "window": masks.window(left=13, right=5),
    "padding": masks.padding([101, 67]),
    "left padding": masks.causal(offset=4) & masks.padding(torch.arange(KEYS) >= 19),
    "prefix": masks.causal() | masks.prefix(17),
    "documents": masks.documents(torch.arange(QUERIES) // 29, torch.arange(KEYS) // 31),
    "nothing seen": masks.window(left=3, right=0, offset=-40),
}
RECORDS = [
    record("all seen"),
    *(record(name, mask, batch=2 if name == "padding" else 1) for name, mask in MASKS.items()),
    record("shared keys", MASKS["causal"], kv_heads=1),
    record("softcap", MASKS["causal"], softcap=2.5),
    record("sinks", MASKS["window"], sinks=torch.tensor([0.5, -1.0, 3.0])),
    record("relative bias", MASKS["causal"], biases=relative(normal(QUERIES + KEYS - 1))),
    record("bias of keys", biases=[Pieces(normal(1, HEADS, 1, KEYS).expand(-1, -1, QUERIES, -1))]),
    record("doubles", biases=[Pieces(relative(normal(QUERIES + KEYS - 1))[0].tensor.double())]),
    record("large", scale=1e-9),
]
RECORDS[-2].queries, RECORDS[-2].keys = (
    Pieces(x.double()) for x in (RECORDS[-2].query, RECORDS[-2].key)
)
RECORDS[-1].queries = Pieces(1e8 * RECORDS[-1].query)  # float16 ends at 65,504


def exact(one):
    """(batch, heads, queries, keys) in float64, and by how much each may be off."""
    query, key = one.query.double(), one.key.double()
    options = {"scale": one.scale, "softcap": one.softcap, "sinks": one.sinks}
    mask = None if one.mask is None else one.mask.dense(query.shape[-2], key.shape[-2])
    weights = reference.stages(query, key, key, mask, bias=one.bias, **options).weights
    scale = key.shape[-1] ** -0.5 if one.scale is None else one.scale
    sizes = query.abs() @ key.repeat_interleave(HEADS // key.shape[1], 1).abs().mT
    apart = scale * sizes * (2 * U + U**2)
    if mask is not None:
        apart = apart.masked_fill(~mask, 0)
    # What the score is off by, and what the logsumexp is: at most the most of the row.
    budget = torch.expm1(apart + apart.amax(-1, keepdim=True)) + ROUNDING
    return weights, weights * budget + 1e-9


def catalogue_of(*records):
    return Catalogue(Volume(Recording("Model", list(records)), "a title"))


@pytest.fixture(scope="module")
def all_kinds():
    return exported(catalogue_of(*RECORDS))


def test_every_kind_is_computed(all_kinds):
    found = kept(all_kinds)
    assert {head.split("/")[0] for head in found["heads"]} == set(map(str, range(len(RECORDS))))
    assert not any(path.startswith("tile/") for path in found["answers"])
    keys = {found["heads"][f"8/0/{head}"]["key"] for head in range(HEADS)}
    assert len(keys) == 1, "shared keys are there once"


@pytest.fixture(params=["a worker", "plain JavaScript"])
def reading(request, shown, opened):
    """A page that reads files. Its server forbids workers, and a file does not."""
    page = opened(shown("decoder"), anew=True, bypass_csp=True)
    if request.param == "plain JavaScript":
        page.evaluate("() => { globalThis.Worker = globalThis.WebAssembly = undefined; }")
    yield page
    assert len(page.workers) == (request.param == "a worker")


def test_weights_are_the_library_s_within_what_float16_rounds(reading, all_kinds):
    paths, wanted = [], []
    for layer, one in enumerate(RECORDS):
        for item, (weights, budget) in enumerate(zip(*exact(one), strict=True)):
            for path, part in (
                (f"tile/{layer}/{item}/2/0/0/0", (2,)),
                (f"row/{layer}/{item}/1/53", (1, 53)),
                (f"column/{layer}/{item}/0/41", (0, slice(None), 41)),
                (
                    f"weights/{layer}/{item}/1/5/3?queries=7&keys=11",
                    (1, slice(5, 12), slice(3, 14)),
                ),
            ):
                paths.append(path)
                wanted.append((weights[part], budget[part]))
            paths.append(f"mean/{layer}/{item}/90/2")
            wanted.append((weights.mean(0)[90:, 2:], budget.mean(0)[90:, 2:]))
    for path, answer, (weights, budget) in zip(
        paths, read_by_page(reading, all_kinds, paths), wanted, strict=True
    ):
        assert answer["isExact"], (path, answer)
        off = (answer["values"].double() - weights).abs()
        assert answer["values"].shape == weights.shape, path
        assert (off <= budget).all(), (RECORDS[int(path.split("/")[1])].name, path, off.max())


@pytest.fixture(scope="module")
def long():
    """A catalogue, and one head of it as a file."""
    sizes = LONG, LONG, LONG_DIM
    catalogue = catalogue_of(record("long", masks.causal(), sizes=sizes))
    return catalogue, exported(catalogue, heads=[1])


def test_tiles_are_pooled_as_by_the_library(reading, long, monkeypatch):
    catalogue, text = long
    place = Place(0, 0, 1)
    the_map = tile_pyramid.Map(rounded(ComputedHeads(catalogue).plan(place).scores))
    monkeypatch.setattr(tile_pyramid, "SOON", 0)
    assert the_map.top == 3
    drafts = [(3, 0, 0, way, False) for way in ("max", "mean")]
    tiles = [(3, 0, 0), (2, 0, 1), (2, 1, 0), (1, 2, 1), (1, 0, 0), (0, 4, 3), (0, 4, 4)]
    asked = [*drafts, *((*tile, way, True) for tile in tiles for way in ("max", "mean"))]
    paths = [
        f"tile/0/0/1/{level}/{row}/{col}?reduce={way}&exact={int(is_exact)}"
        for level, row, col, way, is_exact in asked
    ]
    for (level, row, col, way, is_exact), answer in zip(
        asked, read_by_page(reading, text, paths), strict=True
    ):
        wanted = the_map.tile(level, row, col, way, exact=is_exact)
        assert wanted.is_exact == is_exact == answer["isExact"]
        assert answer["shape"] == list(wanted.cells.shape)
        torch.testing.assert_close(answer["values"], wanted.cells, rtol=3 * ROUNDING, atol=1e-9)


def test_a_question_can_be_cancelled(reading, all_kinds):
    assert reading.evaluate(CANCELS, json.dumps(kept(all_kinds))) == ["AbortError", [QUERIES]]


def test_the_module_is_one_that_runs(shown, opened):
    assert opened(shown("decoder"), anew=True, bypass_csp=True).evaluate(COMPILES) == 1


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_runs_are_what_rows_see(mask):
    if mask.batch is not None:
        mask = mask.at(1)
    runs = runs_of(mask, QUERIES, KEYS, CPU)
    visible = torch.zeros(QUERIES, KEYS, dtype=torch.bool)
    edges = iter(runs.edges.view(-1, 2).tolist())
    for row, count in enumerate(runs.counts.tolist()):
        for _ in range(count):
            visible[row, slice(*next(edges))] = True
    assert next(edges, None) is None
    assert torch.equal(visible, mask.dense(QUERIES, KEYS))


def test_what_follows_no_pattern_is_stored_as_tiles():
    mask = masks.dense(torch.rand(1, 1, QUERIES, KEYS, generator=DRAW) < 0.5)
    odd = (
        record("odd mask", mask),
        record("odd bias", biases=[Pieces(normal(1, HEADS, QUERIES, KEYS))]),
    )
    heads = ComputedHeads(catalogue := catalogue_of(*odd))
    assert heads.plan(Place(0, 0, 1)).reason == "their mask follows no pattern"
    assert heads.plan(Place(1, 0, 1)).reason == "their bias follows no pattern"
    found = kept(exported(catalogue))
    assert not found["heads"]
    assert {"tile/0/0/2/0/0/0", "tile/1/0/2/0/0/0"} <= found["answers"].keys()


def test_biases_of_one_line():
    along, distances = normal(KEYS), normal(QUERIES + KEYS - 1)
    found = bias_of(along.expand(QUERIES, -1))
    assert found.slant == 0
    assert torch.equal(found.values, along)
    found = bias_of(relative(distances)[0].tensor[0, 0])
    assert found.slant == 1
    assert torch.equal(found.values, distances)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_halves_use_all_of_float16(size):
    values = size * normal(1, 1, 5, 7)
    found, exponent = halves(values)
    back = torch.from_numpy(found.astype("f8")) * math.ldexp(1, -exponent)
    torch.testing.assert_close(back, values.double(), rtol=U, atol=size * 2**-30)


def test_no_numbers_stay_none():
    assert halves(torch.full((2, 3), torch.nan))[1] == 0

"""Where words come from: found from pairs alone, and learnt by a head that is shown."""

import json

import numpy as np
import pytest

import pellucid
from pellucid.errors import ArgumentError
from pellucid.training import word_aligner
from pellucid.training.objectives import Translation
from pellucid.training.run_config import Run
from pellucid.training.sequences import Sequences
from tests.training.tiny import END, objective

WORDS, COMMON = 31, 2


def pairs(directory, count=211):
    """A language whose words have each another, in an order that is turned round two by two; one
    word in the source has none. The true place of each target token, too.
    """
    generator = np.random.default_rng(5)
    sources, targets, places = [], [], []
    for _ in range(count):
        said = generator.integers(COMMON + 1, WORDS, 2 * generator.integers(1, 7))
        order = np.arange(len(said)).reshape(-1, 2)[:, ::-1].ravel()
        sources.append([COMMON, *said.tolist(), END])
        targets.append([*(said[order] + WORDS).tolist(), END])
        places.append([*(order + 1), len(said) + 1])
    built = [
        Sequences.build(directory / name, ids, 2 * WORDS)
        for name, ids in (("sources", sources), ("targets", targets))
    ]
    return (*built, np.concatenate(places))


def test_words_are_found_by_their_company(tmp_path):
    sources, targets, places = pairs(tmp_path)
    steps = []
    found = word_aligner.links(sources, targets, 2 * WORDS, lambda *step: steps.append(step))
    assert found.dtype == np.int32
    assert found.shape == places.shape
    is_linked = found >= 0
    assert (found == places)[is_linked].mean() > 0.95  # a word may come twice
    assert is_linked.mean() > 0.9
    assert steps == [(done, 12) for done in range(1, 13)]


@pytest.mark.parametrize(("name", "value"), [("CELLS", 1), ("CELLS", 97), ("SLOTS", 1009)])
def test_neither_pieces_nor_a_small_table_matter(tmp_path, monkeypatch, name, value):
    sources, targets, places = pairs(tmp_path)
    whole = word_aligner.links(sources, targets, 2 * WORDS)
    monkeypatch.setattr(word_aligner, name, value)
    found = word_aligner.links(sources, targets, 2 * WORDS)
    if name == "CELLS":
        assert (found == whole).mean() > 0.99  # sums of float32 in another order
    else:
        assert (found == places)[found >= 0].mean() > 0.9


def test_links_are_kept(tmp_path, monkeypatch):
    sources, targets, _ = pairs(tmp_path)
    told = []
    first = word_aligner.kept(tmp_path, sources, targets, lambda *said: told.append(said))
    assert told[-1] == ("aligning words", 12, 12)
    monkeypatch.setattr(word_aligner, "links", None)
    again = word_aligner.kept(tmp_path, sources, targets, lambda *_: None)
    np.testing.assert_array_equal(first, again)
    with pytest.raises(TypeError):  # other pairs have others
        word_aligner.kept(tmp_path, sources, sources, lambda *_: None)


def test_the_loss_is_that_of_the_words_and_of_the_head(tmp_path):
    made = objective("translator", tmp_path).double()
    part, targets = [3, 11, 5], made.pairs[1]
    plain = made(part)
    generator = np.random.default_rng(3)
    bounds = np.repeat(made.pairs[0].lengths, targets.lengths)
    made.links = (generator.integers(-1, 10**6, len(targets.ids)) % (bounds + 1)) - 1
    made.guidance = 0.3
    layer, head = made.guided
    with pellucid.watch(made.model, layers=[f"decoder.blocks.{layer}.cross"]) as seen:
        found = made(part)
    weights = seen[f"decoder.blocks.{layer}.cross"].dense()[0, head].detach()
    wanted, row, column = 0.0, 0, 0
    for text in part:
        start = int(targets.ends[text] - targets.lengths[text])
        for place in made.links[start : int(targets.ends[text])]:
            wanted -= 0.3 * float(weights[row, column + place].log()) if place >= 0 else 0
            row += 1
        column += int(made.pairs[0].lengths[text])
    assert float((found - plain).detach()) == pytest.approx(wanted, rel=1e-9)


def test_the_head_is_named_beside_the_model(tmp_path):
    plain = objective("translator", tmp_path)
    links = np.zeros(len(plain.pairs[1].ids), np.int32)
    made = Translation(
        plain.model, plain.pairs, plain.held_out, batch_tokens=53, links=links, guidance=0.1
    )
    made.save(tmp_path / "model", made.state_dict())
    said = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert said["alignment_heads"] == [[0, 0]]
    assert pellucid.load(tmp_path / "model").generation.alignment_heads == ((0, 0),)
    for odd in ([[0]], [[2, 0]], [[0, 3]], "00", [["0", 0]], [[True, 0.5]]):
        written = json.dumps(said | {"alignment_heads": odd})
        (tmp_path / "model" / "generation_config.json").write_text(written)
        found = pellucid.load(tmp_path / "model").generation
        assert found.alignment_heads is None
        assert found.others == {"alignment_heads": odd}


def test_guidance_is_for_those_who_look_across(tmp_path):
    with pytest.raises(ArgumentError, match="guidance applies to a translator"):
        Run(what="decoder", files=(tmp_path,), options={"guidance": 0.1})

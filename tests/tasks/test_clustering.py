"""Groups of texts, their words and their map."""

from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import ArgumentError, ShapeError
from pellucid.tasks import cluster, cluster_map, embed, open_encoder

TOPICS = {
    "cat": ["A cat sleeps on the mat", "The cat chases mice", "My cat purrs", "A grey cat meows"],
    "stock": ["Stock prices fell", "The stock market rose", "He sold his stock", "A stock crash"],
    "soup": ["Boil the soup", "The soup needs salt", "A bowl of soup", "Stir the soup slowly"],
}
TEXTS = [text for texts in TOPICS.values() for text in texts]


@pytest.fixture(scope="module")
def vectors():
    return embed(open_encoder(), TEXTS)


def test_three_topics_are_three_groups(vectors):
    found = cluster(TEXTS, vectors)
    assert sorted(group.words[0] for group in found.groups) == sorted(TOPICS)
    for group in found.groups:
        assert {TEXTS[number] for number in group.members} == set(TOPICS[group.words[0]])
        assert group.central == group.members[0]
    assert found.silhouette > 0.2
    assert found.group_of == tuple(
        next(group.number for group in found.groups if number in group.members)
        for number in range(12)
    )


def test_the_central_text_is_nearest_to_the_middle(vectors):
    group = cluster(TEXTS, vectors, groups=2).groups[0]
    middle = vectors[list(group.members)].mean(0)
    assert group.central == max(group.members, key=lambda number: float(vectors[number] @ middle))


@settings(max_examples=20)
@given(seed=st.integers(0, 999), texts=st.integers(2, 13), kinds=st.integers(1, 13))
def test_every_text_is_in_one_group(seed, texts, kinds):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(kinds, 5, generator=generator)
    points = points[torch.randint(0, kinds, (texts,), generator=generator)]
    found = cluster(["rain"] * texts, points, seed=seed)
    assert sorted(n for group in found.groups for n in group.members) == list(range(texts))
    sizes = [len(group.members) for group in found.groups]
    assert sizes == sorted(sizes, reverse=True)
    placed = cluster_map.project(points, seed)
    assert placed.xy.shape == (texts, 2)
    assert placed.xy.min() >= -1e-6
    assert placed.xy.max() <= 1 + 1e-6


def test_a_group_without_words_is_called_by_its_middle():
    found = cluster(["no", "no", "1 +  2", "1 +  2"], torch.eye(2).repeat_interleave(2, 0))
    titles = [
        cluster_map.title_of(group, ["no", "no", "1 +  2", "1 +  2"]) for group in found.groups
    ]
    assert titles == ["no", "1 + 2"]


@pytest.mark.parametrize("kinds", [2, 3])
def test_texts_that_repeat_are_a_group_each(kinds):
    points = torch.eye(kinds).repeat(4, 1)
    found = cluster(["rain"] * len(points), points)
    assert [len(group.members) for group in found.groups] == [4] * kinds
    assert found.silhouette == 1


def test_what_cannot_be_grouped():
    two = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    with pytest.raises(ArgumentError, match=r"groups must be from 1 to 2, .* got 3"):
        cluster(["a", "b", "b"], two, groups=3)
    with pytest.raises(ArgumentError, match="not 0"):
        cluster(["a", "b", "b"], two, groups=0)
    with pytest.raises(ArgumentError, match="no texts to group"):
        cluster([], torch.empty(0, 2))
    with pytest.raises(ShapeError, match="for 2 texts; got"):
        cluster(["a", "b"], two)
    assert len(cluster(["a"], two[:1]).groups) == 1


def test_the_map_is_drawn(vectors):
    texts = [f"{text} <&>" for text in TEXTS]
    found, placed = cluster(texts, vectors), cluster_map.project(vectors)
    svg = cluster_map.to_svg(texts, found, placed, title="a <b>")
    root = ElementTree.fromstring(svg)
    titles = [one.text for one in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[0] == "a <b>: 12 texts in 3 groups"
    assert {title.partition(": ")[2] for title in titles[1:]} == set(texts)
    page = cluster_map.to_html(texts, found, placed, title="a <b>")
    assert page.count("<li>") == 12
    assert "<b>" not in page
    assert "default-src 'none'" in page

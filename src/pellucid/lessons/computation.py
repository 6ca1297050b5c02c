"""What a lesson computes: queries, keys and values, and the stages of attention of one head."""

import math

import torch
from torch import Tensor

from pellucid.attention import energies
from pellucid.attention.reference import Stages, stages
from pellucid.lessons.lesson import Lesson


def inputs(lesson: Lesson) -> tuple[Tensor, Tensor]:
    """What the projections read: (tokens, width), and (keys, width) for keys and values."""
    x = lesson.matrix("embeddings")
    if lesson.positions is not None:
        x = x + lesson.matrix("positions")
    return x, x if lesson.source is None else lesson.matrix("source_embeddings")


def project(lesson: Lesson) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, each (heads, tokens, dim)."""
    if not lesson.is_projected:
        return (
            lesson.matrix("query")[None],
            lesson.matrix("key")[None],
            lesson.matrix("value")[None],
        )
    x, of_keys = inputs(lesson)
    query, key, value = (
        (rows @ lesson.matrix(name)).unflatten(-1, (lesson.heads, -1)).movedim(1, 0)
        for rows, name in ((x, "W_query"), (of_keys, "W_key"), (of_keys, "W_value"))
    )
    return query, key, value


def scale_of(lesson: Lesson) -> float:
    """The factor on the scores."""
    if lesson.scale is not None:
        return lesson.scale
    if lesson.energy != "dot product":
        return 1.0
    columns = len((lesson.query or lesson.W_query or ((),))[0])
    return float((columns // lesson.heads) ** -0.5)


def mask_of(lesson: Lesson) -> tuple[Tensor | None, Tensor | None]:
    """What is added to the scores, and which keys may be seen, (tokens, keys) each."""
    if not isinstance(lesson.mask, str):
        added = lesson.matrix("mask")
        visible = added > -math.inf
        finite = added.masked_fill(~visible, 0)
        return (finite if finite.any() else None), (None if visible.all() else visible)
    if lesson.mask == "none":
        return None, None
    visible = torch.ones(len(lesson.tokens), len(lesson.keys), dtype=torch.bool).tril()
    if lesson.mask == "window":
        visible = visible.triu(1 - lesson.window)
    return None, visible


def attend(lesson: Lesson, query: Tensor, key: Tensor, value: Tensor) -> Stages:
    """The stages of one head, (tokens, keys) each, without batch or heads."""
    bias, visible = mask_of(lesson)
    factor = scale_of(lesson)
    if bias is not None and lesson.mask_before_scale:
        bias = bias * factor
    energy = energy_of(lesson)

    def compare(query: Tensor, key: Tensor) -> Tensor:
        return energy.score(*energy.project(query, key))

    def computed(temperature: float) -> Stages:
        batched = stages(
            query[None],
            key[None],
            value[None],
            visible,
            bias=None if bias is None else bias / temperature,
            scale=factor / temperature,
            score=compare,
        )
        return Stages(*(part[0] for part in batched))

    plain = computed(1.0)
    if lesson.temperature == 1:
        return plain
    warm = computed(lesson.temperature)
    return plain._replace(weights=warm.weights, context=warm.context)


def energy_of(lesson: Lesson) -> energies.Energy:
    if lesson.energy == "cosine":
        return energies.Cosine()
    if lesson.energy == "bilinear":
        return energies.Bilinear(lesson.matrix("W_energy"))
    if lesson.energy == "additive":
        W_query, W_key = lesson.matrix("W_energy").chunk(2)
        return energies.Additive(W_query, W_key, lesson.matrix("v_energy")[0])
    return energies.DotProduct()

"""The steps of attention: what is computed, the numbers, and a sentence about them.

From scores to context the numbers come from the readable reference.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pellucid.attention.reference import Stages
from pellucid.common.wording import count
from pellucid.errors import OutOfRangeError
from pellucid.lessons.computation import attend, inputs, mask_of, project, scale_of
from pellucid.lessons.lesson import Lesson, from_tensors
from pellucid.lessons.sentences import Speaker
from pellucid.lessons.walk import ROLES, Matrix, Step, Walk, find_token, matrix, rows_shown


def explain(
    query: Any,
    key: Any,
    value: Any,
    *,
    tokens: Sequence[str] | None = None,
    **options: Any,
) -> Walk:
    """Attention on your own vectors, step by step: tensors, arrays, or lists of lists of numbers.

    `pellucid.lessons.page.to_html` makes a page of it, and `walk.to_json` JSON.

    Args:
        query: (tokens, key_dim).
        key: (keys, key_dim).
        value: (keys, value_dim).
        tokens: a label for each query; numbered unless given.
        options: any other field of `Lesson`: mask, scale, temperature, energy, source, ...

    Raises:
        ShapeError: the tensors do not fit one another.
        ArgumentError: an option is unknown, or its value none.
    """
    return walk_lesson(from_tensors(query, key, value, tokens=tokens, **options))


def walk_lesson(lesson: Lesson, *, query: str | None = None, head: int = 0) -> Walk:
    """All steps of a lesson.

    Args:
        lesson: what the numbers are computed from.
        query: show the rows of this token alone.
        head: of several heads, the one whose scores and weights are shown.

    Raises:
        UnknownNameError: no token is called so.
        OutOfRangeError: there is no such head.
    """
    if not 0 <= head < lesson.heads:
        heads = count(lesson.heads, "head")
        raise OutOfRangeError(f"head {head} is out of range: the lesson has {heads}")
    focus = find_token(lesson.tokens, query) if query else ()
    speaker = Speaker(
        lesson.tokens,
        focus[0] if focus else lesson.speaker,
        None if lesson.source is None else lesson.keys,
    )
    steps: list[Step] = []
    if lesson.is_projected:
        steps += [*_embed(lesson, speaker), *_project(lesson, speaker)]
    else:
        steps.append(_given_vectors(lesson))
    projected = project(lesson)
    attended = [
        attend(lesson, *(part[index] for part in projected)) for index in range(lesson.heads)
    ]
    bias, visible = mask_of(lesson)
    steps += stage_steps(
        lesson.tokens,
        attended[head],
        key_dim=projected[0].shape[-1],
        speaker=speaker,
        focus=focus,
        visible=visible,
        factor=scale_of(lesson),
        energy=lesson.energy,
        temperature=lesson.temperature,
        bias=bias,
        mask_before_scale=lesson.mask_before_scale,
        of_head=f" of head {head}" if lesson.heads > 1 else "",
    )
    if lesson.heads > 1:
        steps += _join(lesson, attended, speaker, focus)
    return Walk(
        title=lesson.title or " ".join(lesson.tokens),
        about=lesson.about,
        tokens=lesson.tokens,
        steps=tuple(steps),
    )


SCORES = {
    "dot product": "scores = Q · Kᵀ",
    "cosine": "scores = cos(Q, K)",
    "bilinear": "scores = Q · W · Kᵀ",
    "additive": "scores = v · tanh(Q · W_1 + K · W_2)",
}


def stage_steps(
    tokens: tuple[str, ...],
    stages: Stages,
    *,
    key_dim: int,
    speaker: Speaker,
    factor: float,
    focus: tuple[int, ...] = (),
    visible: Tensor | None = None,
    energy: str = "dot product",
    temperature: float = 1.0,
    bias: Tensor | None = None,
    bias_name: str = "M",
    mask_before_scale: bool = False,
    softcap: float | None = None,
    has_sink: bool = False,
    decimals: int = 4,
    of_head: str = "",
) -> tuple[Step, ...]:
    """The steps from scores to context of one head.

    Args:
        tokens: a label for each query.
        found: its stages, (queries, keys) each.
        key_dim: numbers of a query.
        speaker: speaks for one of the queries, and knows the keys.
        factor: what the scores were multiplied by.
        focus: the queries whose rows are shown; all of them if empty.
        visible: (queries, keys) bool, True = may be seen; None hides nothing.
        energy: how the scores were made, as in `Lesson`.
        temperature: what the softmax divided by.
        bias: (queries, keys), what was added to the scores.
        bias_name: what to call it.
        mask_before_scale: whether it was added before the scores were scaled.
        softcap: see `reference.stages`.
        has_sink: whether a sink took part in the softmax.
        decimals: how many to show.
        of_head: said behind the names of steps.
    """
    shown, labels = rows_shown(tokens, focus)
    keys = speaker.key_names

    def rows(name: str, numbers: Tensor, columns: tuple[str, ...] | None = keys) -> Matrix:
        return matrix(name, numbers[shown], labels, columns, decimals=decimals)

    is_root = energy == "dot product" and math.isclose(factor, key_dim**-0.5)
    scaled = "scaled = scores / √d_k" if is_root else f"scaled = scores · {factor:.4g}"
    added = [] if bias is None else [rows(bias_name, bias)]
    steps = [
        Step(
            name="score",
            formula=SCORES[energy] + of_head,
            sentence=speaker.score(stages.scores, visible),
            matrices=(rows("scores", stages.scores),),
        ),
        Step(
            name="scale",
            formula=scaled,
            sentence=speaker.scale(stages.scores, factor, key_dim),
            matrices=(rows("scaled", stages.scaled),),
        ),
    ]
    if softcap is not None:
        steps.append(
            Step(
                name="cap",
                formula="capped = softcap · tanh(scaled / softcap)",
                sentence=f"No score can leave the range from {-softcap:g} to {softcap:g}.",
                matrices=(rows("capped", stages.capped),),
            )
        )
    if bias is None:
        formula = "masked = scaled, −∞ where hidden"
    elif mask_before_scale:
        formula = f"masked = (scores + {bias_name}) · scale, −∞ where hidden"
    else:
        formula = f"masked = scaled + {bias_name}, −∞ where hidden"
    logits = "masked" if temperature == 1 else f"masked / {temperature:g}"
    sink = "exp(sink) + " if has_sink else ""
    steps += [
        Step(
            name="mask",
            formula=formula,
            sentence=speaker.mask(visible)
            + ("" if bias is None else _order(mask_before_scale, bias_name, factor)),
            matrices=(*added, rows("masked", stages.masked)),
        ),
        Step(
            name="softmax",
            formula=f"weights = exp({logits}) / ({sink}sum of exp({logits}) along the row)"
            if sink
            else f"weights = exp({logits}) / sum of exp({logits}) along the row",
            sentence=speaker.softmax(stages.weights),
            matrices=(
                matrix(
                    "weights",
                    stages.weights[shown],
                    labels,
                    keys,
                    kind="percent",
                    visible=None if visible is None else visible[shown],
                ),
            ),
        ),
        Step(
            name="mix",
            formula="context = weights · V",
            sentence=speaker.mix(stages.weights, stages.context),
            matrices=(rows("context", stages.context, None),),
        ),
    ]
    return tuple(steps)


def _order(before: bool, name: str, factor: float) -> str:
    """Whether it matters that M is added before or after the scale."""
    if before:
        return (
            f" {name} is added before the scale, which multiplies it by {factor:.4g} too. "
            "Where it is −∞ that changes nothing; a finite number counts for less."
        )
    return (
        f" {name} is added after the scale, so that it counts in full. Where it is −∞ the order "
        "changes nothing."
    )


def _embed(lesson: Lesson, speaker: Speaker) -> tuple[Step, ...]:
    tokens, position = lesson.tokens, speaker.position
    x, of_keys = inputs(lesson)
    source: tuple[Matrix, ...] = ()
    if lesson.source is not None:
        source = (matrix("X of the source", of_keys, lesson.source, decimals=2),)
    numbers = ", ".join(f"{number:.2f}" for number in x[position, :3].tolist())
    more = ", …" if x.shape[1] > 3 else ""
    if lesson.positions is None:
        return (
            Step(
                name="embed",
                formula="X = embeddings of the tokens",
                sentence=f"Each token is {count(x.shape[1], 'number')}: "
                f"'{tokens[position]}' is ({numbers}{more}).",
                matrices=(matrix("X", x, tokens, decimals=2), *source),
            ),
        )
    return (
        Step(
            name="embed",
            formula="X = token embeddings + position embeddings",
            sentence=f"The token says which word it is, the position where it stands: together "
            f"'{tokens[position]}' at position {position} is ({numbers}{more}). Without positions "
            "the same words in another order would give the same vectors.",
            matrices=(
                matrix("token", lesson.matrix("embeddings"), tokens, decimals=2),
                matrix(
                    "position",
                    lesson.matrix("positions"),
                    tuple(map(str, range(len(tokens)))),
                    decimals=2,
                ),
                matrix("X", x, tokens, decimals=2),
                *source,
            ),
        ),
    )


def _project(lesson: Lesson, speaker: Speaker) -> tuple[Step, ...]:
    x, of_keys = inputs(lesson)
    steps = []
    for role, letter in ROLES.items():
        W = lesson.matrix(f"W_{role}")
        rows, labels = (x, lesson.tokens) if role == "query" else (of_keys, lesson.keys)
        columns = tuple(f"x{i}" for i in range(len(W)))
        steps.append(
            Step(
                name=role,
                formula=f"{letter} = X · W_{role}",
                sentence=speaker.vectors(role, rows @ W),
                matrices=(matrix(f"W_{role}", W, columns), matrix(letter, rows @ W, labels)),
            )
        )
    return tuple(steps)


def _given_vectors(lesson: Lesson) -> Step:
    return Step(
        name="vectors",
        formula="Q, K and V are given",
        sentence="No projections here: queries, keys and values are given as they are.",
        matrices=(
            matrix("Q", lesson.matrix("query"), lesson.tokens),
            matrix("K", lesson.matrix("key"), lesson.keys),
            matrix("V", lesson.matrix("value"), lesson.keys),
        ),
    )


def _join(
    lesson: Lesson, heads: list[Stages], speaker: Speaker, focus: tuple[int, ...]
) -> tuple[Step, ...]:
    """The heads side by side, and mixed by W_output."""
    shown, labels = rows_shown(lesson.tokens, focus)
    joined = torch.cat([head.context for head in heads], dim=-1)
    size = heads[0].context.shape[-1]
    columns = tuple(f"h{index}.{i}" for index in range(len(heads)) for i in range(size))
    steps = [
        Step(
            name="concat",
            formula="concat(head 0, head 1, …)",
            sentence=f"The contexts of {count(len(heads), 'head')} stand side by side: "
            f"{joined.shape[-1]} numbers a token.",
            matrices=(matrix("concat", joined[shown], labels, columns),),
        )
    ]
    if lesson.W_output is not None:
        W = lesson.matrix("W_output")
        output = joined @ W
        numbers = ", ".join(f"{number:.2f}" for number in output[speaker.position, :3].tolist())
        more = ", …" if output.shape[1] > 3 else ""
        steps.append(
            Step(
                name="output",
                formula="output = concat · W_output",
                sentence="W_output mixes what the heads found into one vector a token; "
                f"{speaker.name} has ({numbers}{more}).",
                matrices=(
                    matrix("W_output", W, columns),
                    matrix("output", output[shown], labels),
                ),
            )
        )
    return tuple(steps)

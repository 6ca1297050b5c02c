"""Walks of what is no single head's self-attention: a translation, and a text that goes on."""

import math
from dataclasses import replace

import torch

from pellucid import pretrained
from pellucid.attention.reference import stages
from pellucid.common.files import is_blank, printable
from pellucid.common.wording import percent
from pellucid.errors import ArgumentError, OutOfRangeError
from pellucid.film.numbers import matrices
from pellucid.film.prompt import Wish
from pellucid.film.token_text import positions_of
from pellucid.lens import Record, watch
from pellucid.lessons.model import walk_model
from pellucid.lessons.walk import ROLES, Kind, Matrix, Step, Walk
from pellucid.models import EncoderDecoder
from pellucid.readers import open_checkpoint
from pellucid.tasks.decoders import open_writer
from pellucid.tasks.translation import open_translator, translate

NEXT_TOKENS = 4
"""How many a film of a generation writes."""
CANDIDATES = 5
"""How many it shows that might have been next."""
_SPACE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})


def finding_head(
    sentence: str,
    query: int,
    keys: tuple[int, ...],
    *,
    model: str | None = None,
    layer: int | None = None,
    causal: bool = False,
) -> tuple[int, int, float]:
    """The layer and head in which a token gives most to others, and how much.

    Args:
        sentence: what the model reads.
        query: the position of the token.
        keys: those of the others.
        model: as for `open_checkpoint`.
        layer: look in this one alone.
        causal: hide from each token those after it.
    """
    checkpoint = open_checkpoint(model)
    ids = torch.tensor([checkpoint.tokenizer(sentence, truncation=False)["input_ids"]])
    with watch(checkpoint.model) as seen, torch.no_grad():
        checkpoint.run(input_ids=ids, attention_mask=torch.ones_like(ids))
    best = (0, 0, -1.0)
    records = [
        record
        for record in seen.records
        if record.query.shape[2] == record.key.shape[2] == ids.shape[1]
    ]
    for number, record in enumerate(records):
        if layer not in (None, number):
            continue
        row = record.weights[0][:, query]  # (heads, keys)
        if causal:
            row = row[:, : query + 1] / row[:, : query + 1].sum(-1, keepdim=True).clamp_min(1e-12)
        shares = row[:, [key for key in keys if key < row.shape[1]]].sum(-1)
        share, head = shares.max(0)
        if float(share) > best[2]:
            best = (number, int(head), float(share))
    return best


def of_one_head(walk: Walk, head: int) -> Walk:
    """The walk of a lesson with the queries, keys and values of one head alone, and the columns of
    the matrices that make them; what several heads become in the end stays.

    Args:
        walk: its scores and contexts are of that head.
        head: from 0.
    """
    size = len(matrices(walk)["context"].column_labels)
    own = slice(head * size, (head + 1) * size)
    of_head = {*ROLES.values(), *(f"W_{role}" for role in ROLES)}

    def cut(matrix: Matrix) -> Matrix:
        if matrix.name not in of_head:
            return matrix
        return replace(
            matrix,
            values=tuple(row[own] for row in matrix.values),
            column_labels=matrix.column_labels[own],
        )

    steps = (replace(step, matrices=tuple(map(cut, step.matrices))) for step in walk.steps)
    return replace(walk, steps=tuple(steps))


def walk_translation(
    sentence: str, *, model: str | None = None, layer: int | None = None, head: int | None = None
) -> Walk:
    """The walk of one head of cross-attention, as a translator writes its translation.

    A row is what was asked when a token was written: the query of the token before it.

    Args:
        sentence: what is translated.
        model: an encoder-decoder, Pellucid's own unless given.
        layer: of the decoder, from 0; the one that the model names for alignment unless given.
        head: from 0; likewise.

    Raises:
        ArgumentError: the sentence is blank, or nothing comes of it.
        OutOfRangeError: there is no such layer or head.
    """
    if is_blank(sentence):
        raise ArgumentError('sentence is empty; give some words, like "Write a poem"')
    name = model or str(pretrained.TRANSLATOR)
    loaded = open_translator(name)
    [made] = translate(loaded, [sentence], whole=True, protect="none")
    assert loaded.config.start is not None
    assert loaded.tokenizer is not None
    written = [loaded.config.start, *made.ids]
    with torch.no_grad(), watch(loaded, values=True) as seen:
        loaded(torch.tensor([made.source_ids]), torch.tensor([written[:-1]]))
    crosses = [record for record in seen.records if record.is_cross]
    layer, head = _aligning(loaded, crosses, layer, head)
    sources, targets = (_spelled(loaded, ids) for ids in (made.source_ids, made.ids))
    called = "Pellucid's translator" if model is None or model == "translator" else name
    return Walk(
        title=sentence,
        about=(
            f"{called}, cross-attention, layer {layer} (of 0 to {len(crosses) - 1}), "
            f"head {head} (of 0 to {crosses[layer].query.shape[1] - 1})",
            f"Translation: {made.text}",
        ),
        tokens=targets,
        steps=_steps(crosses[layer], head, targets, sources),
        facts={"model": called, "layer": layer, "head": head, "translation": made.text},
    )


def _spelled(model: EncoderDecoder, ids: list[int]) -> tuple[str, ...]:
    """Tokens as text, a sign before those that begin a word."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    texts = []
    for number in ids:
        token, text = tokenizer.token(number), tokenizer.decode([number], special=True).strip()
        is_text = bool(text) and "\ufffd" not in text
        begins = token.startswith(("Ġ", "▁"))
        texts.append(printable(("▁" if begins else "") + text if is_text else token))
    return tuple(texts)


def _aligning(
    model: EncoderDecoder, crosses: list[Record], layer: int | None, head: int | None
) -> tuple[int, int]:
    """What is given; else what the model names; else the sharpest head of the last but one."""
    named = (model.generation.alignment_heads or [None])[0]
    if layer is None:
        layer = named[0] if named is not None else max(0, len(crosses) - 2)
    if not 0 <= layer < len(crosses):
        raise OutOfRangeError(f"layer {layer} is out of range: there are 0 to {len(crosses) - 1}")
    heads = crosses[layer].query.shape[1]
    if head is None and named is not None and named[0] == layer:
        head = named[1]
    if head is None:
        head = int(crosses[layer].weights[0].amax(-1).mean(-1).argmax())
    if not 0 <= head < heads:
        raise OutOfRangeError(f"head {head} is out of range: there are 0 to {heads - 1}")
    return layer, head


def _steps(
    record: Record, head: int, targets: tuple[str, ...], sources: tuple[str, ...]
) -> tuple[Step, ...]:
    pair = head * record.key.shape[1] // record.query.shape[1]
    assert record.value is not None  # it was asked for
    query = record.query[0, head].double()
    key, value = record.key[0, pair].double(), record.value[0, pair].double()
    bias = record.bias
    computed = stages(
        query[None],
        key[None],
        value[None],
        record.weights.masked[0, head] > -torch.inf,
        bias=None if bias is None else bias.expand(record.weights.shape)[0, head].double(),
        scale=record.scale,
        softcap=record.softcap,
    )

    def made(
        name: str,
        numbers: torch.Tensor,
        rows: tuple[str, ...],
        columns: tuple[str, ...] = (),
        kind: Kind = "number",
    ) -> Matrix:
        return Matrix(
            name=name,
            values=tuple(map(tuple, numbers.tolist())),
            row_labels=rows,
            column_labels=columns or tuple(map(str, range(numbers.shape[1]))),
            kind=kind,
            decimals=2,
        )

    usual = record.scale is None or abs(record.scale * query.shape[1] ** 0.5 - 1) < 1e-6
    step = _step
    steps = [
        step("query", "Q, of what was written before", made("Q", query, targets)),
        step("key", "K, of the source", made("K", key, sources)),
        step("value", "V, of the source", made("V", value, sources)),
        step("score", "scores = Q · Kᵀ", made("scores", computed.scores[0], targets, sources)),
        step(
            "scale",
            "scaled = scores / √d_k" if usual else "scaled = scores · scale",
            made("scaled", computed.scaled[0], targets, sources),
        ),
        step(
            "mask",
            "masked = scaled, −∞ where hidden",
            made("masked", computed.masked[0], targets, sources),
        ),
        step(
            "softmax",
            "weights = softmax of each row",
            made("weights", computed.weights[0], targets, sources, "percent"),
        ),
        step("mix", "context = weights · V", made("context", computed.context[0], targets)),
    ]
    if record.softcap is not None:
        steps.insert(5, step("cap", "capped", made("capped", computed.capped[0], targets, sources)))
    return tuple(steps)


def _step(name: str, formula: str, *matrices: Matrix) -> Step:
    return Step(name=name, formula=formula, sentence="", matrices=matrices)


@torch.no_grad()
def with_next(walk: Walk, *, model: str | None = None, tokens: int = NEXT_TOKENS) -> Walk:
    """The walk of a text with what its model writes next, a step for each token: the likeliest ones
    of all, and how likely they are. The likeliest is taken.

    Args:
        walk: of a decoder.
        model: that decoder, Pellucid's own unless given.
        tokens: how many.
    """
    loaded = open_writer(model or pretrained.DECODER)
    assert loaded.tokenizer is not None
    [ids] = loaded.tokenizer.encode([walk.title])
    if ids and ids[-1] in loaded.config.stop:  # an end mark would say that the text is over
        ids = ids[:-1]
    most = loaded.config.positions
    if most is not None and len(ids) + tokens > most:
        raise ArgumentError(f"sentence has {len(ids)} tokens, which leaves no room to write on")
    steps = []
    begun = loaded.tokenizer.decode(ids)
    for number in range(tokens):
        shares = loaded(torch.tensor([ids]), last=True)[0].double().softmax(-1)
        top = shares.topk(CANDIDATES)
        text = walk.title + loaded.tokenizer.decode(ids)[len(begun) :]
        labels = tuple(
            _label(loaded.tokenizer.decode([candidate], special=True))
            for candidate in top.indices.tolist()
        )
        matrix = Matrix(
            name=f"next_{number}",
            values=(tuple(top.values.tolist()),),
            row_labels=(printable(text),),
            column_labels=labels,
            kind="percent",
        )
        steps.append(
            Step(
                name=f"next {number + 1}",
                formula="probabilities = softmax(logits)",
                sentence=f"The likeliest next token is '{labels[0]}'.",
                matrices=(matrix,),
            )
        )
        chosen = int(top.indices[0])
        if chosen in loaded.config.stop:
            break
        ids = [*ids, chosen]
    return replace(walk, steps=(*walk.steps, *steps))


def _label(text: str) -> str:
    return printable(text.strip() or text.translate(_SPACE))


def walk_wished(
    wish: Wish, *, model: str | None = None, layer: int | None = None, head: int | None = None
) -> tuple[Walk, int | None, tuple[int, ...]]:
    """The walk that a wish asks for, the row that it names if it does, and the keys to be found.

    Raises:
        ArgumentError, UnknownNameError, OutOfRangeError: there is no such walk.
    """
    finds: tuple[int, ...] = ()
    if wish.translate:
        walk = walk_translation(wish.sentence, model=model, layer=layer, head=head)
        text = str(walk.facts["translation"])
        query = positions_of(wish.query, text, walk.tokens)[-1] if wish.query else None
        sources = matrices(walk)["weights"].column_labels
        if wish.finds:
            finds = positions_of(wish.finds, wish.sentence, sources)
        return walk, query, finds
    walk = walk_model(wish.sentence, model=model, layer=layer, head=head, causal=wish.causal)
    # What a word of several tokens means is known where its last one has been read.
    query = positions_of(wish.query, wish.sentence, walk.tokens)[-1] if wish.query else None
    if wish.finds:
        assert query is not None
        finds = positions_of(wish.finds, wish.sentence, walk.tokens)
        if head is None:
            layer, head, share = finding_head(
                wish.sentence, query, finds, model=model, layer=layer, causal=wish.causal
            )
            walk = walk_model(
                wish.sentence, model=model, layer=layer, head=head, causal=wish.causal
            )
            why = f"Chosen as the head in which '{wish.query}' gives '{wish.finds}' most"
            walk = replace(walk, about=(walk.about[0], f"{why}: {percent(share)}."))
        if all(matrices(walk)["masked"].values[query][key] == -math.inf for key in finds):
            raise ArgumentError(
                f"'{wish.query}' cannot see '{wish.finds}': the mask hides it, as it comes later"
            )
    if wish.generate:
        query = len(walk.tokens) - 1 if query is None else query
        walk = with_next(walk, model=model)
    return walk, query, finds

"""Beam search: the likeliest of many continuations, a few of the best kept at each step.

Each source goes its own way and is dropped as soon as nothing that still runs could beat what it
has finished, so that a batch does not wait for its longest text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pellucid.attention import masks
from pellucid.attention.block_statistics import top_places
from pellucid.common.wording import count
from pellucid.errors import ArgumentError, TooLargeError
from pellucid.models import EncoderDecoder

AT_ONCE = 2**19
"""Logits that are looked through at once: as many as stay near a core."""
NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Beam:
    """A finished text."""

    ids: tuple[int, ...]
    """Without the start, with the stop that ended it."""
    score: float
    """Its log-probability over its length ** length_penalty."""


@dataclass(eq=False, slots=True)
class _Source:
    """One source, and what was found for it."""

    place: int
    finished: list[Beam] = field(default_factory=list)

    def add(self, beam: Beam, beams: int) -> None:
        self.finished = sorted([*self.finished, beam], key=lambda one: -one.score)[:beams]

    def is_done(self, best: float, beams: int) -> bool:
        """Whether nothing that runs, scored `best` as it is, can beat the worst that is kept."""
        return len(self.finished) == beams and best <= self.finished[-1].score


def search(
    model: EncoderDecoder,
    sources: Tensor,
    lengths: Tensor,
    *,
    beams: int = 4,
    max_tokens: int | Tensor = 256,
    length_penalty: float = 1.0,
    banned: Sequence[int] = (),
    forced_start: int | None = None,
    forced_stop: int | None = None,
    early: bool = False,
) -> list[list[Beam]]:
    """The best texts for each source, best first.

    A text's score is the sum of its tokens' log-probabilities over its length, the stop included,
    to the power of `length_penalty` (Wu et al. 2016, "GNMT", section 7, without its constant). With
    one beam this is greedy decoding.

    Args:
        model: an encoder-decoder whose config has a start and a stop.
        sources: ids, (sources, tokens), padded behind.
        lengths: (sources,) tokens of each that are no padding.
        beams: how many texts run at once for each source.
        max_tokens: the most that are written, the stop included; of each source alike, or
            (sources,). No more than the model has positions for.
        length_penalty: above 0 favours long texts.
        banned: ids that are never written, as if the model did not know them: the probabilities of
            all others sum to 1.
        forced_start: the id that each text begins with, whatever its probability.
        forced_stop: the id that ends a text that has reached max_tokens, whatever its probability.
        early: end a source as soon as it has `beams` texts, though one that still runs could become
            better.

    Raises:
        ArgumentError: beams or max_tokens below 1, or a model without a start or stop.
        TooLargeError: there is no memory for so many tokens.
    """
    config = model.config
    limits = torch.as_tensor(max_tokens, device=sources.device).expand(len(sources))
    if beams < 1:
        raise ArgumentError(f"beams must be at least 1, not {beams}")
    if bool((limits < 1).any()):
        raise ArgumentError(f"max_tokens must be at least 1, not {int(limits.min())}")
    if config.start is None or not config.stop:
        raise ArgumentError("the model's config has no start and stop, which a search needs")
    if config.positions is not None:
        limits = limits.clamp(max=config.positions)
    with torch.no_grad():
        mask = None if bool((lengths == sources.shape[1]).all()) else masks.padding(lengths)
        memory = model.encode(sources, mask)
        longest = int(limits.max())
        try:
            cache = model.cache(len(sources), longest)
        except RuntimeError as error:  # torch has no error of its own for that on the CPU
            raise TooLargeError(
                f"there is no memory for {count(len(sources), 'text')} of {longest:,} tokens; "
                "lower max_tokens"
            ) from error
        running = [_Source(place) for place in range(len(sources))]
        found: list[list[Beam]] = [[] for _ in running]
        written = sources.new_empty(len(running), 1, 0)
        scores = torch.zeros(len(running), 1, device=sources.device)
        latest = sources.new_full((len(running), 1), config.start)
        for length in range(1, longest + 1):
            is_last = limits == length
            logits = model.decode(latest, memory, mask, cache=cache, last=True).float()
            logits[:, list(banned)] = NEVER
            if forced_start is not None and length == 1:
                logits[:] = NEVER
                logits[:, forced_start] = 0
            if forced_stop is not None:
                forced = is_last.repeat_interleave(scores.shape[1])
                logits[forced] = NEVER
                logits[forced, forced_stop] = 0
            values, parents, ids = _best(logits, scores, beams * max(2, 1 + len(config.stop)))
            is_stop = torch.isin(ids, ids.new_tensor(config.stop)) | is_last[:, None]
            _finish(running, written, values, parents, ids, is_stop, beams, length**length_penalty)
            # The best that go on; a text that has ended does not.
            order = values.masked_fill(is_stop, NEVER).topk(min(beams, values.shape[1]), -1)
            scores = order.values
            parents, ids = parents.gather(1, order.indices), ids.gather(1, order.indices)
            best = (scores[:, 0] / length**length_penalty).tolist()
            on = [
                index
                for index, (source, ends) in enumerate(zip(running, is_last.tolist(), strict=True))
                if not ends and not source.is_done(NEVER if early else best[index], beams)
            ]
            for index in set(range(len(running))) - set(on):
                found[running[index].place] = running[index].finished
            if not on:
                break
            chosen = torch.tensor(on, device=sources.device)
            rows = chosen[:, None] * written.shape[1] + parents[chosen]
            written = torch.cat([written.flatten(0, 1)[rows], ids[chosen].unsqueeze(-1)], -1)
            cache.select(rows.flatten(), written.shape[1])
            if len(on) < len(running):
                running, scores = [running[index] for index in on], scores[chosen]
                memory, lengths, limits = memory[chosen], lengths[chosen], limits[chosen]
                mask = None if mask is None else masks.padding(lengths)
            latest = written[:, :, -1].reshape(-1, 1)
    return found


def _best(logits: Tensor, scores: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest continuations of each source: scores, beams and ids, (sources, most) each.

    They are among the likeliest of each beam, so that no probability of all others is written down.

    Args:
        logits: (sources * beams, vocabulary), which are used up.
        scores: (sources, beams) so far.
        most: how many.
    """
    rows = max(1, AT_ONCE // logits.shape[1])
    likeliest = [_likeliest(some, min(most, logits.shape[1])) for some in logits.split(rows)]
    values, places = (torch.cat(parts) for parts in zip(*likeliest, strict=True))
    values = values.view(*scores.shape, -1) + scores.unsqueeze(-1)
    best = values.flatten(1).topk(min(most, values[0].numel()), -1)
    width = values.shape[-1]
    ids = places.view(len(scores), -1).gather(1, best.indices)
    return best.values, best.indices // width, ids


def _likeliest(logits: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities and ids, (rows, most) each, of logits (rows, vocabulary), in place."""
    places = top_places(logits, most)
    values = logits.gather(1, places)
    largest = values[:, :1]
    total = largest + logits.sub_(largest).exp_().sum(-1, keepdim=True).log()
    return values - total, places


def _finish(
    running: list[_Source],
    written: Tensor,
    values: Tensor,
    parents: Tensor,
    ids: Tensor,
    is_stop: Tensor,
    beams: int,
    share: float,
) -> None:
    """Keep the texts that have ended, of those that are among the best."""
    ended = is_stop[:, :beams].nonzero().tolist()
    for source, place in ended:
        score = float(values[source, place]) / share
        if score == NEVER:
            continue
        text = written[source, int(parents[source, place])].tolist()
        running[source].add(Beam((*text, int(ids[source, place])), score), beams)

"""Beam search: at each step, keep the few likeliest partial texts of each source.

A source leaves the batch as soon as none of its running beams can beat its finished ones, so a
batch does not wait for its longest text.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pellucid.attention import masks
from pellucid.attention.block_statistics import top_places
from pellucid.common.wording import count
from pellucid.errors import ArgumentError, TooLargeError
from pellucid.layers.background import may_call
from pellucid.layers.cache import Cache
from pellucid.layers.matrix_vector import cores, fits
from pellucid.models import Decoder, EncoderDecoder
from pellucid.tasks.logit_rules import Rule

CHUNK = 2**19
"""Logits searched at once without compiled code: few enough to stay in a core's cache."""
WORTHWHILE = 2**20
"""Logits below which loading the compiled code costs more than it saves."""
NEVER = float("-inf")
NO_TOKEN = "the rules on logits leave no token that a text could go on or end with"


@dataclass(frozen=True, slots=True)
class Beam:
    """A finished text."""

    ids: tuple[int, ...]
    """Without the start token, with the stop token."""
    score: float
    """Log-probability / length ** length_penalty."""


@dataclass(eq=False, slots=True)
class _Source:
    """One source text and its finished beams."""

    index: int
    finished: list[Beam] = field(default_factory=list)

    def add(self, beam: Beam, beams: int) -> None:
        self.finished = sorted([*self.finished, beam], key=lambda beam: -beam.score)[:beams]

    def is_done(self, best: float, beams: int) -> bool:
        """Whether no running beam, of which the best scores `best`, can beat a finished one."""
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
    start: int | None = None,
    rules: Sequence[Rule] = (),
) -> list[list[Beam]]:
    """The best target texts of each source, best first.

    The score of a text is the sum of its tokens' log-probabilities divided by
    length ** length_penalty, where the length includes the stop token (Wu et al. 2016, "GNMT",
    section 7, without its constant). One beam is greedy decoding.

    Args:
        model: an encoder-decoder whose config names a start and a stop token.
        sources: ids, (sources, tokens), padded on the right.
        lengths: (sources,) numbers of tokens without padding.
        beams: the beam width.
        max_tokens: the most tokens to write, including the stop token: an int, or (sources,). It
            is capped at the number of the model's positions.
        length_penalty: above 0 favours long texts.
        banned: ids that are never written; they are excluded from the softmax.
        forced_start: the first id of each text, whatever its probability.
        forced_stop: the last id of a text that reaches max_tokens, whatever its probability.
        start: the id that each text follows; by default that of the model.
        early: finish a source as soon as it has `beams` texts, even if a running beam could still
            beat one of them.
        rules: change the log-probabilities of the next token; the start token is the prompt.

    Raises:
        ArgumentError: beams or max_tokens is below 1, the model has no start or stop token, or the
            rules leave no token.
        TooLargeError: there is not enough memory for the cache.
    """
    config = model.config
    limits = torch.as_tensor(max_tokens, device=sources.device).expand(len(sources))
    if beams < 1:
        raise ArgumentError(f"beams must be at least 1, not {beams}")
    if bool((limits < 1).any()):
        raise ArgumentError(f"max_tokens must be at least 1, not {int(limits.min())}")
    start = config.start if start is None else start
    if start is None or not config.stop:
        raise ArgumentError("beam search needs a start and a stop token in the model's config")
    if config.positions is not None:
        limits = limits.clamp(max=config.positions)
    with torch.no_grad():
        mask = None if bool((lengths == sources.shape[1]).all()) else masks.padding(lengths)
        memory = model.encode(sources, mask)
        longest = int(limits.max())
        cache = _cache(model, len(sources), longest)
        running = [_Source(index) for index in range(len(sources))]
        results: list[list[Beam]] = [[] for _ in running]
        written = sources.new_empty(len(running), 1, 0)
        scores = torch.zeros(len(running), 1, device=sources.device)
        latest = sources.new_full((len(running), 1), start)
        for length in range(1, longest + 1):
            is_last = limits == length
            logits = model.decode(latest, memory, mask, cache=cache, last=True).float()
            logits[:, list(banned)] = NEVER
            if rules:
                texts = ([start, *ids] for beams_of in written.tolist() for ids in beams_of)
                logits = _ruled(logits, rules, texts, 1)
            if forced_start is not None and length == 1:
                logits[:] = NEVER
                logits[:, forced_start] = 0
            if forced_stop is not None:
                forced = is_last.repeat_interleave(scores.shape[1])
                logits[forced] = NEVER
                logits[forced, forced_stop] = 0
            most = beams * max(2, 1 + len(config.stop))
            values, parents, ids = _best(logits, scores, most, are_chances=bool(rules))
            is_stop = torch.isin(ids, ids.new_tensor(config.stop)) | is_last[:, None]
            _finish(running, written, values, parents, ids, is_stop, beams, length**length_penalty)
            # The best continuations that have not ended.
            order = values.masked_fill(is_stop, NEVER).topk(min(beams, values.shape[1]), -1)
            scores = order.values
            parents, ids = parents.gather(1, order.indices), ids.gather(1, order.indices)
            best = (scores[:, 0] / length**length_penalty).tolist()
            unfinished = [
                row
                for row, (source, ends) in enumerate(zip(running, is_last.tolist(), strict=True))
                if not ends and not source.is_done(NEVER if early else best[row], beams)
            ]
            for row in set(range(len(running))) - set(unfinished):
                results[running[row].index] = running[row].finished
            if not unfinished:
                break
            kept = torch.tensor(unfinished, device=sources.device)
            rows = kept[:, None] * written.shape[1] + parents[kept]
            written = torch.cat([written.flatten(0, 1)[rows], ids[kept].unsqueeze(-1)], -1)
            cache.select(rows.flatten(), written.shape[1])
            if len(unfinished) < len(running):
                running, scores = [running[row] for row in unfinished], scores[kept]
                memory, lengths, limits = memory[kept], lengths[kept], limits[kept]
                mask = None if mask is None else masks.padding(lengths)
            latest = written[:, :, -1].reshape(-1, 1)
    if not all(results):
        raise ArgumentError(NO_TOKEN)
    return results


def _ruled(
    logits: Tensor, rules: Sequence[Rule], texts: Iterable[list[int]], prompt: int
) -> Tensor:
    """Log-probabilities, (texts, vocabulary), that rules have changed."""
    chances = logits.log_softmax(-1)
    for row, ids in zip(chances, texts, strict=True):
        for rule in rules:
            rule(row, ids, prompt)
    return chances


def _cache(model: Decoder | EncoderDecoder, texts: int, tokens: int) -> Cache:
    try:
        return model.cache(texts, tokens)
    except RuntimeError as error:  # torch raises nothing more specific on the CPU
        raise TooLargeError(
            f"there is no memory for {count(texts, 'text')} of {tokens:,} tokens; lower max_tokens"
        ) from error


def continuations(
    model: Decoder,
    ids: Sequence[int],
    *,
    beams: int,
    max_tokens: int,
    length_penalty: float = 1.0,
    early: bool = False,
    rules: Sequence[Rule] = (),
    stop: Sequence[int] | None = None,
    ends: Callable[[tuple[int, ...]], bool] | None = None,
) -> list[Beam]:
    """The best texts after a prompt, best first: as `search`, for a decoder.

    The prompt counts neither in the score nor in the length of a text.

    Args:
        model: a decoder.
        ids: of the prompt, at least one.
        beams: the beam width.
        max_tokens: the most tokens to write, including the stop token. It is capped at the number
            of the model's positions.
        length_penalty: above 0 favours long texts.
        early: as for `search`.
        rules: change the log-probabilities of the next token.
        stop: ids that end a text; by default those of the model.
        ends: whether a text, of ids after the prompt, ends with its last, as by a stop string; it
            is asked of texts that are one id longer than texts it was asked of before.

    Raises:
        ArgumentError: beams or max_tokens is below 1, the prompt leaves no position, or the rules
            no token.
        TooLargeError: there is not enough memory for the cache.
    """
    if beams < 1 or max_tokens < 1:
        raise ArgumentError(f"beams and max_tokens must be at least 1, not {beams}, {max_tokens}")
    limit = max_tokens
    last = torch.tensor(
        model.config.stop if stop is None else list(stop), dtype=torch.int64, device=model.device
    )
    if model.config.positions is not None:
        limit = min(limit, model.config.positions - len(ids) + 1)  # the last token is not read
    if limit < 1:
        raise ArgumentError(f"the prompt of {len(ids)} tokens leaves no position for a text")
    source = _Source(0)
    with torch.no_grad():
        cache = _cache(model, 1, len(ids) + limit)
        read = torch.tensor([list(ids)], device=model.device)
        written, scores = read.new_empty(1, 1, 0), torch.zeros(1, 1, device=model.device)
        for length in range(1, limit + 1):
            logits = model(read, cache=cache, last=True).float()
            if rules:
                texts = ([*ids, *new] for new in written[0].tolist())
                logits = _ruled(logits, rules, texts, len(ids))
            most = beams * max(2, 1 + len(last))
            values, parents, tokens = _best(logits, scores, most, are_chances=bool(rules))
            is_stop = torch.isin(tokens, last) | torch.tensor(length == limit)
            if ends is not None:
                candidates = torch.cat([written[0, parents[0]], tokens[0, :, None]], -1).tolist()
                is_stop |= is_stop.new_tensor([ends(tuple(text)) for text in candidates])
            normaliser = length**length_penalty
            _finish([source], written, values, parents, tokens, is_stop, beams, normaliser)
            order = values.masked_fill(is_stop, NEVER).topk(min(beams, values.shape[1]), -1)
            scores, rows = order.values, parents.gather(1, order.indices)[0]
            best = NEVER if early else float(scores[0, 0]) / normaliser
            if length == limit or source.is_done(best, beams):
                break
            new = tokens.gather(1, order.indices)
            written = torch.cat([written[:, rows], new.unsqueeze(-1)], -1)
            cache.select(rows)
            read = new.reshape(-1, 1)
    if not source.finished:
        raise ArgumentError(NO_TOKEN)
    return source.finished


def _best(
    logits: Tensor, scores: Tensor, most: int, *, are_chances: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest continuations of each source: scores, parent beams and ids, (sources, most).

    They are among the likeliest of each beam, so the log-softmax of all others is never computed.

    Args:
        logits: (sources * beams, vocabulary), overwritten.
        scores: (sources, beams) of the texts so far.
        most: the number of continuations.
        are_chances: whether the logits are log-probabilities already.
    """
    each = min(most, logits.shape[1])
    values, tokens = logits.topk(each) if are_chances else _likeliest(logits, each)
    values = values.view(*scores.shape, -1) + scores.unsqueeze(-1)
    best = values.flatten(1).topk(min(most, values[0].numel()), -1)
    ids = tokens.view(len(scores), -1).gather(1, best.indices)
    return best.values, best.indices // values.shape[-1], ids


def _likeliest(logits: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities and ids, (rows, most) each, of logits (rows, vocabulary), in place."""
    if logits.numel() >= WORTHWHILE and fits(logits, len(logits)) and logits.is_contiguous():
        from pellucid.tasks import beam_kernel

        tokens = torch.empty(len(logits), most, dtype=torch.long)
        values = torch.empty(len(logits), most)
        arguments = logits.numpy(), tokens.numpy(), values.numpy()
        if may_call(beam_kernel.likeliest, *arguments, 1):
            with cores() as parts:
                beam_kernel.likeliest(*arguments, parts)
            return values, tokens
    pairs = [_likeliest_of(chunk, most) for chunk in logits.split(CHUNK // logits.shape[1] + 1)]
    values, tokens = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return values, tokens


def _likeliest_of(logits: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """As `_likeliest`, of few enough logits to stay in a core's cache."""
    tokens = top_places(logits, most)
    values = logits.gather(1, tokens)
    largest = values[:, :1]
    total = largest + logits.sub_(largest).exp_().sum(-1, keepdim=True).log()
    return values - total, tokens


def _finish(
    running: list[_Source],
    written: Tensor,
    values: Tensor,
    parents: Tensor,
    ids: Tensor,
    is_stop: Tensor,
    beams: int,
    normaliser: float,
) -> None:
    """Store the texts that have ended and are among the best `beams` continuations."""
    for source, rank in is_stop[:, :beams].nonzero().tolist():
        score = float(values[source, rank]) / normaliser
        if score == NEVER:
            continue
        text = written[source, int(parents[source, rank])].tolist()
        running[source].add(Beam((*text, int(ids[source, rank])), score), beams)

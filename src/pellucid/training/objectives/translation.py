"""An encoder-decoder learns to say in one language what it reads in another."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.attention import masks
from pellucid.common.wording import short
from pellucid.errors import MissingExtraError
from pellucid.lens import watch
from pellucid.models import EncoderDecoder
from pellucid.training.attention_losses import end_to_end, guided_loss
from pellucid.training.attention_snapshot import short_one
from pellucid.training.batches import Bunches, cut, pack
from pellucid.training.objectives.base import (
    LINE,
    Objective,
    Part,
    Progress,
    output,
    perplexity,
    typical,
)
from pellucid.training.sequences import Sequences

EXAMINED = 1000
"""Held-out pairs that are translated for BLEU, at the most."""
SHOWN = 3


class Translation(Objective):
    """The next target token, given the source and those before it (Vaswani et al. 2017, 5.4).

    Sources lie end to end in one row, and targets in another; each target sees its own source.
    """

    judged_by = "loss"
    model: EncoderDecoder

    def __init__(
        self,
        model: EncoderDecoder,
        pairs: tuple[Sequences, Sequences],
        held_out: tuple[Sequences, Sequences],
        *,
        batch_tokens: int,
        seed: int = 0,
        smoothing: float = 0.0,
        links: np.ndarray | None = None,
        guidance: float = 0.0,
    ) -> None:
        """Learn from pairs.

        Args:
            model: whose `config.start` begins a target; texts end in a mark of their own.
            pairs: sources, and as many targets.
            held_out: the same, to be judged by.
            batch_tokens: tokens of an update, sources and targets together.
            seed: of the order.
            smoothing: of labels.
            links: the place in its source that each target token comes from, as `alignment.links`
                finds them, for a head that learns to look there.
            guidance: weight of its loss.
        """
        super().__init__()
        self.model, self.pairs, self.held_out = model, pairs, held_out
        self.together = pairs[0].lengths + pairs[1].lengths
        self.bunches = Bunches(self.together, batch_tokens, seed, pairs[0].lengths)
        self.smoothing, self.links, self.guidance = smoothing, links, guidance
        # The layer and the head that are shown: of the last layer but one, as Garg et al. have it.
        self.guided = max(0, len(model.decoder.blocks) - 2), 0
        if links is not None:
            model.generation = replace(model.generation, alignment_heads=(self.guided,))

    def batch(self, step: int) -> Part:
        texts: Part = self.bunches.texts(step).tolist()
        return texts

    def cut(self, part: Part, most: int) -> list[Part]:
        return [piece.tolist() for piece in cut(np.array(part), self.together, most)]

    def targets(self, part: Part) -> int:
        return int(self.pairs[1].lengths[part].sum())

    def tokens(self, part: Part) -> int:
        return int(self.together[part].sum())

    def lengths(self) -> tuple[float, ...]:
        return tuple(typical(texts.lengths) for texts in self.pairs)

    def forward(self, part: Part) -> Tensor:
        if self.links is None:
            x, targets = self._through(self.pairs, part)
            return output(self.model, x, targets, self.smoothing)
        layer, head = self.guided
        name = f"decoder.blocks.{layer}.cross"
        seen = watch(self.model, layers=[name])
        seen.runs_eagerly = False  # the guided block is left uncompiled, and the others are fast
        with seen:
            x, targets = self._through(self.pairs, part)
        told = output(self.model, x, targets, self.smoothing)
        shown = guided_loss(seen[name], self._links(part), heads=head, reduction="sum")
        return told + self.guidance * shown

    def _links(self, part: Part) -> Tensor:
        """Those of pairs that lie end to end, (links, 2): target and source."""
        assert self.links is not None
        found = []
        for text in part:
            end = int(self.pairs[1].ends[text])
            start = end - int(self.pairs[1].lengths[text])
            places = torch.tensor(self.links[start:end], dtype=torch.int64)
            rows = (places >= 0).nonzero()
            found.append(torch.cat([rows, places[rows]], 1))
        sources, targets = (texts.lengths[part].tolist() for texts in self.pairs)
        return end_to_end(found, targets, sources)

    def _through(self, pairs: tuple[Sequences, Sequences], part: Part) -> tuple[Tensor, Tensor]:
        """What the last block makes, (1, target tokens, width), and the targets."""
        start = torch.tensor([self.model.config.start])
        read = [pairs[1][number] for number in part]
        source = pack([pairs[0][number] for number in part]).to(self.model.device)
        target = pack([torch.cat([start, text[:-1]]) for text in read]).to(self.model.device)
        assert source.texts is not None
        assert target.texts is not None
        memory = self.model.encoder(source.ids, mask=source.mask, positions=source.positions)
        x: Tensor = self.model.decoder(
            target.ids,
            mask=target.mask,
            positions=target.positions,
            memory=memory,
            memory_mask=masks.documents(target.texts, source.texts),
        )
        return x, torch.cat(read)[None].to(self.model.device)

    def measure(self, progress: Progress | None = None) -> dict[str, float]:
        """The mean loss of a held-out target token, in nats, without smoothing."""
        lengths = self.held_out[0].lengths + self.held_out[1].lengths
        nats, done = 0.0, 0
        by_length = np.argsort(lengths, kind="stable")
        for part in cut(by_length, lengths, 8192):
            with torch.no_grad():
                nats += float(output(self.model, *self._through(self.held_out, part.tolist())))
            done += len(part)
            if progress is not None:
                progress(done, len(lengths))
        loss = nats / len(self.held_out[1].ids)
        return {"loss": loss, "perplexity": perplexity(loss)}

    def examine(self, progress: Progress | None = None) -> dict[str, Any]:
        """BLEU and chrF besides, of what beam search makes of up to 1,000 held-out sources."""
        try:
            from sacrebleu.metrics.bleu import BLEU
            from sacrebleu.metrics.chrf import CHRF
        except ImportError as error:
            raise MissingExtraError.of("BLEU needs sacrebleu", "train") from error
        found = self._translated(EXAMINED, progress)
        made, wanted = [one for one, _ in found], [[one for _, one in found]]
        bleu, chrf = BLEU(), CHRF()
        scores = {"BLEU": bleu.corpus_score(made, wanted), "chrF": chrf.corpus_score(made, wanted)}
        return {
            **self.measure(),
            "bleu": scores["BLEU"].score,
            "chrf": scores["chrF"].score,
            "translated": len(made),
            "signatures": [str(bleu.get_signature()), str(chrf.get_signature())],
        }

    def example(self) -> tuple[Tensor, Tensor]:
        source, target = self.held_out
        number = short_one(np.maximum(source.lengths, target.lengths))
        start = torch.tensor([self.model.config.start])
        return source[number], torch.cat([start, target[number]])

    def sample(self) -> str:
        if self.model.tokenizer is None:
            return ""
        found = self._translated(SHOWN, None)
        return "\n".join(f"{short(made, LINE)}  <- {short(wanted, LINE)}" for made, wanted in found)

    def _translated(self, most: int, progress: Progress | None) -> list[tuple[str, str]]:
        """What the model makes of the first held-out sources, and what it should be."""
        from pellucid.tasks.translation import translate

        tokenizer = self.model.tokenizer
        assert tokenizer is not None
        numbers = range(min(most, len(self.held_out[0])))
        sources, targets = (
            [tokenizer.decode(texts[number].tolist()) for number in numbers]
            for texts in self.held_out
        )
        made = translate(self.model, sources, progress=progress)
        return list(zip((one.text for one in made), targets, strict=True))

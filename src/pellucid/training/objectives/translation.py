"""Translation by an encoder-decoder."""

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
from pellucid.training.batches import LengthBatches, cut, pack
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
"""The most held-out pairs that are translated for BLEU."""
SHOWN = 3


class Translation(Objective):
    """Next-token prediction of the target, given the source (Vaswani et al. 2017, section 5.4).

    Sources are packed into one row and targets into another; each target attends to its source.
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
        """Train on pairs.

        Args:
            model: an encoder-decoder with a start token; texts end with a stop token.
            pairs: sources and targets.
            held_out: sources and targets for evaluation.
            batch_tokens: tokens of an update, sources and targets together.
            seed: of the order.
            smoothing: label smoothing.
            links: the source index of each target token, as from `alignment.links`, which
                supervises one head.
            guidance: the weight of that head's loss.
        """
        super().__init__()
        self.model, self.pairs, self.held_out = model, pairs, held_out
        self.together = pairs[0].lengths + pairs[1].lengths
        self.batches = LengthBatches(self.together, batch_tokens, seed, pairs[0].lengths)
        self.smoothing, self.links, self.guidance = smoothing, links, guidance
        # The guided layer and head: of the penultimate layer, as in Garg et al.
        self.guided = max(0, len(model.decoder.blocks) - 2), 0
        if links is not None:
            model.generation = replace(model.generation, alignment_heads=(self.guided,))

    def batch(self, step: int) -> Part:
        texts: Part = self.batches.texts(step).tolist()
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
            x, targets = self._hidden(self.pairs, part)
            return output(self.model, x, targets, self.smoothing)
        layer, head = self.guided
        name = f"decoder.blocks.{layer}.cross"
        recording = watch(self.model, layers=[name])
        recording.runs_eagerly = False  # only the guided block is not compiled
        with recording:
            x, targets = self._hidden(self.pairs, part)
        loss = output(self.model, x, targets, self.smoothing)
        guided = guided_loss(recording[name], self._links(part), heads=head, reduction="sum")
        return loss + self.guidance * guided

    def _links(self, part: Part) -> Tensor:
        """The links of packed pairs, (links, 2): target and source."""
        assert self.links is not None
        links = []
        for text in part:
            end = int(self.pairs[1].ends[text])
            start = end - int(self.pairs[1].lengths[text])
            aligned = torch.tensor(self.links[start:end], dtype=torch.int64)
            rows = (aligned >= 0).nonzero()
            links.append(torch.cat([rows, aligned[rows]], 1))
        sources, targets = (texts.lengths[part].tolist() for texts in self.pairs)
        return end_to_end(links, targets, sources)

    def _hidden(self, pairs: tuple[Sequences, Sequences], part: Part) -> tuple[Tensor, Tensor]:
        """The hidden states, (1, target tokens, width), and the target ids."""
        start = torch.tensor([self.model.config.start])
        targets = [pairs[1][number] for number in part]
        source = pack([pairs[0][number] for number in part]).to(self.model.device)
        target = pack([torch.cat([start, text[:-1]]) for text in targets]).to(self.model.device)
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
        return x, torch.cat(targets)[None].to(self.model.device)

    def measure(self, progress: Progress | None = None) -> dict[str, float]:
        """The mean loss of held-out target tokens in nats, without label smoothing."""
        lengths = self.held_out[0].lengths + self.held_out[1].lengths
        nats, done = 0.0, 0
        by_length = np.argsort(lengths, kind="stable")
        for part in cut(by_length, lengths, 8192):
            with torch.no_grad():
                nats += float(output(self.model, *self._hidden(self.held_out, part.tolist())))
            done += len(part)
            if progress is not None:
                progress(done, len(lengths))
        loss = nats / len(self.held_out[1].ids)
        return {"loss": loss, "perplexity": perplexity(loss)}

    def examine(self, progress: Progress | None = None) -> dict[str, Any]:
        """Also BLEU and chrF of the translations of up to 1,000 held-out sources."""
        try:
            from sacrebleu.metrics.bleu import BLEU
            from sacrebleu.metrics.chrf import CHRF
        except ImportError as error:
            raise MissingExtraError.of("BLEU needs sacrebleu", "train") from error
        hypotheses, references = self._translated(EXAMINED, progress)
        bleu, chrf = BLEU(), CHRF()
        return {
            **self.measure(),
            "bleu": bleu.corpus_score(hypotheses, [references]).score,
            "chrf": chrf.corpus_score(hypotheses, [references]).score,
            "translated": len(hypotheses),
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
        pairs = zip(*self._translated(SHOWN, None), strict=True)
        return "\n".join(
            f"{short(hypothesis, LINE)}  <- {short(reference, LINE)}"
            for hypothesis, reference in pairs
        )

    def _translated(self, most: int, progress: Progress | None) -> tuple[list[str], list[str]]:
        """The model's translations of the first held-out sources, and the references."""
        from pellucid.tasks.translation import translate

        tokenizer = self.model.tokenizer
        assert tokenizer is not None
        numbers = range(min(most, len(self.held_out[0])))
        sources, targets = (
            [tokenizer.decode(texts[number].tolist()) for number in numbers]
            for texts in self.held_out
        )
        whole: Any = {"whole": True, "protect": "none"}  # as it was trained
        translations = translate(self.model, sources, progress=progress, **whole)
        return [translation.text for translation in translations], targets

"""The largest logit and the entropy of each head while a model trains, and QK-clip.

Logits that grow without bound end in one-hot attention, whose gradients vanish, and in a loss that
jumps (Zhai et al. 2023, "Stabilizing Transformer Training by Preventing Attention Entropy
Collapse"). The largest logit shows it before the loss does.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError
from pellucid.layers.block import HeadAttention
from pellucid.lens import Watch, watch
from pellucid.training.distributed import Processes
from pellucid.training.settings import Settings


@dataclass(frozen=True, slots=True)
class HeadFigures:
    """The figures of one head in one step."""

    module: str
    head: int
    max_logit: float
    """The largest of the step."""
    entropy: float
    """The mean over its queries, in nats."""


class HeadMonitor:
    """Watches the steps of a run that are reported, or with QK-clip every step."""

    def __init__(self, objective: nn.Module, settings: Settings, processes: Processes) -> None:
        """Prepare to watch.

        Raises:
            ArgumentError: QK-clip cannot bound the logits of this model, or in this run.
        """
        self._objective, self._settings, self._processes = objective, settings, processes
        self._modules = {
            name: module
            for name, module in objective.named_modules()
            if isinstance(module, HeadAttention)
        }
        if not settings.qk_clip:
            return
        if settings.compile or settings.shard:
            name = "compile" if settings.compile else "shard"
            raise ArgumentError(f"qk_clip and {name} exclude each other: choose one")
        if any(module.query_norm is not None for module in self._modules.values()):
            raise ArgumentError(
                "qk_clip has no effect on a model that normalises queries and keys, which bounds "
                "their logits already"
            )

    def is_reported(self, step: int) -> bool:
        """Whether the figures of a step, counted from 1, are reported: before an evaluation."""
        settings = self._settings
        return step == settings.steps or step % settings.evaluate_every == 0

    def watching(self, step: int) -> AbstractContextManager[Watch | None]:
        """Watch the passes of a step, counted from 1, if its figures are needed."""
        is_needed = self.is_reported(step) or self._settings.qk_clip
        # A watch would run compiled blocks eagerly, with other roundings.
        if not is_needed or self._settings.compile or not self._modules:
            return nullcontext()
        return watch(self._objective, list(self._modules), collect=("entropy", "max_logit"))

    def after_step(self, step: int, seen: Watch | None) -> list[HeadFigures]:
        """Clip the heads of a step; returns its figures, of all processes, if they are reported."""
        figures = []
        for name, totals in ({} if seen is None else seen.collected).items():
            assert totals.max_logit is not None
            assert totals.entropy is not None
            max_logit = self._processes.maximum(totals.max_logit)
            if self._settings.qk_clip:
                clip_logits(self._modules[name], max_logit, self._settings.qk_clip)
            if self.is_reported(step):
                entropy = self._processes.mean(totals.entropy).tolist()
                both = zip(max_logit.tolist(), entropy, strict=True)
                short = name.removeprefix("model.")
                figures += [HeadFigures(short, head, *pair) for head, pair in enumerate(both)]
        return figures


@torch.no_grad()
def clip_logits(module: HeadAttention, max_logit: Tensor, bound: float) -> None:
    """QK-clip: shrink the projections of each head whose largest logit was above the bound.

    The logits of such a head are multiplied by bound / max_logit: queries and keys by its root, or,
    where heads share their keys, queries alone. Biases that are added to the scores stay.

    Args:
        module: its projections are changed in place.
        max_logit: (heads,) the largest logits of the last step.
        bound: above 0.

    Source: Kimi Team 2025, "Kimi K2", section 2.1, algorithm 1.
    """
    factor = (bound / max_logit).where(max_logit > bound, 1)
    shares_keys = module.key.out_features < module.query.out_features
    factor = factor if shares_keys else factor.sqrt()
    for projection in (module.query,) if shares_keys else (module.query, module.key):
        rows = factor.to(projection.weight).repeat_interleave(module.dim)
        projection.weight.mul_(rows.unsqueeze(-1))
        if projection.bias is not None:
            projection.bias.mul_(rows)

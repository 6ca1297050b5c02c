"""The settings of the training loop."""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.layers.bfloat16 import PRECISIONS, Precision, fast_dtype


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The hyperparameters of the training loop.

    Raises:
        ArgumentError: a number is out of range.
        TypeMismatchError: a value has the wrong type.
    """

    steps: int
    """Updates of the weights."""
    batch_tokens: int = 8192
    """Tokens of an update, over all processes."""
    part_tokens: int = 8192
    """The most tokens of one forward pass; larger batches accumulate gradients."""
    learning_rate: float = 1e-3
    """The peak learning rate."""
    warmup: float = 0.05
    """The share of the steps in which the learning rate rises linearly from 0."""
    floor: float = 0.05
    """The share of the peak learning rate at the end of the cosine (Loshchilov and Hutter 2017,
    "SGDR", equation 5, one period)."""
    weight_decay: float = 0.1
    """Of matrices only (Loshchilov and Hutter 2019, "Decoupled Weight Decay")."""
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    """The maximum gradient norm over all parameters (Pascanu et al. 2013)."""
    qk_clip: float = 0.0
    """The largest attention logit that a head may have, beyond which its projections shrink (Kimi
    Team 2025, "Kimi K2", section 2.1); 0 for no bound."""
    label_smoothing: float = 0.0
    """The share of each target spread over all tokens (Szegedy et al. 2016, section 7)."""
    guidance: float = 0.0
    """The weight of a loss that supervises one cross-attention head of a translator with word
    alignments (Garg et al. 2019; see `alignment`)."""
    average: float = 0.0
    """The decay per step of a moving average of the weights, which is evaluated and saved instead
    of them (Polyak and Juditsky 1992); 0 for none."""
    seed: int = 0
    precision: Precision = "auto"
    """The dtype of matrix products; "auto" is the fastest of the device."""
    checkpointing: bool = False
    """Whether to recompute blocks in the backward pass instead of storing their activations
    (Chen et al. 2016)."""
    compile: bool = False
    shard: bool = False
    """Whether each process holds only a shard of the weights (FSDP2)."""
    evaluate_every: int = 250
    save_every: int = 250
    keep: int = 2
    """The number of checkpoints to keep."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, field.type, getattr(self, field.name))
        for name in ("steps", "batch_tokens", "part_tokens", "evaluate_every", "save_every"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        self._check("keep", self.keep >= 2, "at least 2, in case one is damaged")
        self._check("seed", 0 <= self.seed < 2**32, "0 to 2**32 - 1")
        for name in ("learning_rate", "clip"):
            self._check(name, getattr(self, name) > 0, "above 0")
        for name in ("weight_decay", "guidance", "qk_clip"):
            self._check(name, getattr(self, name) >= 0, "at least 0")
        for name in ("beta1", "beta2", "label_smoothing", "average"):
            self._check(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        for name in ("warmup", "floor"):
            self._check(name, 0 <= getattr(self, name) <= 1, "0 to 1")
        self._check("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")

    def _check(self, name: str, fits: bool, wanted: str) -> None:
        if not fits:
            raise ArgumentError(f"{name} must be {wanted}, not {getattr(self, name)!r}")

    def dtype(self, device: torch.device) -> torch.dtype:
        """The dtype of matrix products on a device; weights are always float32."""
        if self.precision == "auto":
            return fast_dtype(device)
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0: linear warmup, then half a cosine."""
        warmup = round(self.warmup * self.steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, self.steps - warmup)
        share = self.floor + (1 - self.floor) * (1 + math.cos(math.pi * min(done, 1))) / 2
        return self.learning_rate * share


def _check_type(name: str, kind: Any, value: Any) -> None:
    kinds: dict[Any, Any] = {int: int, float: (int, float), bool: bool}
    if kind not in kinds:
        return
    is_wrong_bool = isinstance(value, bool) and kind is not bool  # a bool is an int in Python
    if is_wrong_bool or not isinstance(value, kinds[kind]):
        raise TypeMismatchError(f"{name} must be of type {kind.__name__}, not {value!r}")
    if kind is float and not math.isfinite(value):
        raise ArgumentError(f"{name} must be finite, not {value}")

"""What a training run may be told, all of it in one place."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.training import hardware

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train; what, the objective says.

    Raises:
        ArgumentError: a number outside what makes sense.
        TypeMismatchError: a value of another type.
    """

    steps: int
    """Updates of the weights."""
    batch_tokens: int = 8192
    """Tokens of an update, of all processes together."""
    part_tokens: int = 8192
    """The most tokens of one forward pass; a batch of more is several, whose gradients add up."""
    learning_rate: float = 1e-3
    """The highest."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises from 0."""
    floor: float = 0.05
    """Share of the highest learning rate that is left at the end of the cosine (Loshchilov and
    Hutter 2017, "SGDR", equation 5, one period)."""
    weight_decay: float = 0.1
    """Of matrices; vectors do not decay (Loshchilov and Hutter 2019, "Decoupled Weight Decay")."""
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    """The longest gradient, by its norm over all parameters (Pascanu et al. 2013)."""
    label_smoothing: float = 0.0
    """Share of each target that goes to all tokens alike (Szegedy et al. 2016, section 7)."""
    guidance: float = 0.0
    """Weight of a loss by which one head of a translator's cross-attention learns to look where
    words come from (Garg et al. 2019; see `alignment`)."""
    average: float = 0.0
    """Decay, a step, of a running mean of the weights that is judged and kept in their place
    (Polyak and Juditsky 1992); 0 = none."""
    seed: int = 0
    precision: Precision = "auto"
    """What matrices are multiplied in; "auto" is what the device is fastest in."""
    checkpointing: bool = False
    """Whether blocks are run again on the way back, in place of keeping what they made
    (Chen et al. 2016)."""
    compile: bool = False
    shard: bool = False
    """Whether each process holds a part of the weights alone (FSDP2), and not all of them."""
    evaluate_every: int = 250
    save_every: int = 250
    keep: int = 2
    """The newest checkpoints that are kept."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, field.type, getattr(self, field.name))
        for name in ("steps", "batch_tokens", "part_tokens", "evaluate_every", "save_every"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        self._check("keep", self.keep >= 2, "at least 2, so that a damaged one loses little")
        self._check("seed", 0 <= self.seed < 2**32, "0 to 2**32 - 1")
        for name in ("learning_rate", "clip"):
            self._check(name, getattr(self, name) > 0, "above 0")
        for name in ("weight_decay", "guidance"):
            self._check(name, getattr(self, name) >= 0, "at least 0")
        for name in ("beta1", "beta2", "label_smoothing", "average"):
            self._check(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        for name in ("warmup", "floor"):
            self._check(name, 0 <= getattr(self, name) <= 1, "0 to 1")
        precisions = ("auto", "float32", "bfloat16")
        self._check("precision", self.precision in precisions, f"one of {', '.join(precisions)}")

    def _check(self, name: str, fits: bool, wanted: str) -> None:
        if not fits:
            raise ArgumentError(f"{name} must be {wanted}, not {getattr(self, name)!r}")

    def dtype(self, device: torch.device) -> torch.dtype:
        """What matrices are multiplied in there; weights are float32 all the same."""
        if self.precision == "auto":
            return hardware.fast_dtype(device)
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0: up in a line, and down along half a cosine."""
        rising = round(self.warmup * self.steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        done = (step - rising) / max(1, self.steps - rising)
        left = self.floor + (1 - self.floor) * (1 + math.cos(math.pi * min(done, 1))) / 2
        return self.learning_rate * left


def _check_type(name: str, kind: Any, value: Any) -> None:
    kinds: dict[Any, Any] = {int: int, float: (int, float), bool: bool}
    if kind not in kinds:
        return
    is_other = isinstance(value, bool) and kind is not bool  # which Python takes for an int
    if is_other or not isinstance(value, kinds[kind]):
        raise TypeMismatchError(f"{name} must be of type {kind.__name__}, not {value!r}")
    if kind is float and not math.isfinite(value):
        raise ArgumentError(f"{name} must be finite, not {value}")

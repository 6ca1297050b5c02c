"""Low-rank adapters (Hu et al. 2021, "LoRA"), as peft writes them, merged into a model's weights.

    weight + scale * B @ A                                          scale = lora_alpha / r
    magnitude * that / the length of each of its rows               with use_dora (Liu et al. 2024)

adapter_config.json           the base model, and the scale
adapter_model.safetensors     A and B of each adapted module, and whole tensors that were trained
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.common import untrusted
from pellucid.common.untrusted import json_in
from pellucid.common.wording import short
from pellucid.errors import FileError
from pellucid.layers.config import Config
from pellucid.models.checkpoints.family import Family
from pellucid.models.checkpoints.source import ADAPTER_CONFIG
from pellucid.models.checkpoints.weight_files import MERGED, Stored, Tensors

CONFIG = ADAPTER_CONFIG
ADVICE = f"merge it with peft: {MERGED}"
BASE = "--model ADAPTER+BASE, or load(ADAPTER, base=BASE)"
PARTS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
UNSUPPORTED = (
    *("layer_replication", "lora_bias", "megatron_config", "target_parameters", "use_qalora"),
    *("alora_invocation_tokens", "trainable_token_indices", "arrow_config", "use_bdlora"),
)
"""Settings that change more than weights by A and B."""
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", None)
"""Ways to start A and B that leave the base model as it is."""
PATTERN = re.compile(r"[\w.\-^$\\]*(\.\*[\w.\-^$\\]*){0,3}")
"""Patterns of names that take no more than a moment to compare."""


def is_adapter(directory: Path, base: str | Path | None) -> bool:
    """Whether a directory is opened as an adapter; every way to open a model asks this.

    Args:
        directory: of the model.
        base: the model that is to be changed, if the user named one.

    Raises:
        FileError: it has a model besides, and no base is named: either could be meant.
    """
    if not (directory / CONFIG).is_file():
        return False
    if base is None and (directory / "config.json").is_file():
        raise FileError(
            f"it has both a model (config.json) and an adapter ({CONFIG}); for the model with the "
            "adapter, name it as the base too: --model DIRECTORY+DIRECTORY, or load(DIRECTORY, "
            f"base=DIRECTORY); for the model alone, move {CONFIG} away"
        )
    return True


def base_of(directory: Path) -> Path:
    """The directory of the model that an adapter changes, if the adapter names one within its own.

    An adapter may be a stranger's, and no file outside its directory is read because it says so.

    Raises:
        FileError: it names none, or another place.
    """
    base = json_in(directory, CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise FileError(f"its {CONFIG} has no base_model_name_or_path; name the base: {BASE}")
    try:
        path = untrusted.inside(directory, base, CONFIG)
        if (path / "config.json").is_file():
            return path
    except FileError:
        pass  # it lies outside
    raise FileError(
        f"its {CONFIG} names the base model '{short(base, 200)}', which is not in its directory; "
        f"if that is the model you mean, name it yourself: {BASE}; or {ADVICE}"
    )


@dataclass
class _Change:
    """The parts of an adapter that change one tensor."""

    parts: dict[str, str] = field(default_factory=dict)
    """The stored name of each, by its kind."""
    module: str = ""


class Adapted:
    """The tensors of a base model with those of an adapter merged into them, when accessed."""

    def __init__(self, base: Stored, directory: Path, family: Family, config: Config) -> None:
        """Read the names of an adapter.

        Args:
            base: the tensors of the base model.
            directory: of the adapter.
            family: of the base model.
            config: of the base model.

        Raises:
            FileError: the adapter is of another kind, or changes what the base model does not have.
        """
        self.base, self.family = base, family
        self.settings = json_in(directory, CONFIG)
        _check(self.settings)
        if self.settings.get("task_type") == "SEQ_CLS" and config.classifier is None:
            raise FileError(
                f"its {CONFIG} is of a classifier (SEQ_CLS), but the base model's config.json has "
                f"none; {ADVICE}"
            )
        self.tensors = Tensors(directory, None)
        self.changes: dict[str, _Change] = {}
        self.whole: dict[str, str] = {}
        """Tensors of the adapter that replace one of the base, by that one's name."""
        self.head: dict[str, str] = {}
        """The head of a tied model, and the embedding that the base stores for it. An adapter
        changes either alone: peft leaves the other at the weights of the base."""
        self._untie(config)
        for name in self.tensors:
            self._sort(name)
        self._check_shared()
        self.numbers = base.numbers + self.tensors.numbers

    def _untie(self, config: Config) -> None:
        """Give the head of a tied model a name of its own."""
        if config.kind == "encoder" or not config.tied:
            return
        for embedding, copies in self.family.copies.items():
            stored = self._in_base(embedding)
            for copy in filter(self._is_head, copies):
                if stored is not None and copy not in self.base:
                    self.head[copy] = stored

    def _is_head(self, copy: str) -> bool:
        return copy.startswith(self.family.outside)

    def _check_shared(self) -> None:
        """Refuse to change an embedding that an encoder shares with a decoder: which of the two
        peft changes depends on the version of transformers.
        """
        for embedding, copies in self.family.copies.items():
            shared = [copy for copy in copies if not self._is_head(copy)]
            for name in (embedding, *shared) if shared else ():
                if {name, self._in_base(name)} & {*self.changes, *self.whole}:
                    raise FileError(
                        f"its adapter changes {name.removesuffix('.weight')}, which the base "
                        f"model's encoder and decoder share; {ADVICE}"
                    )

    def _sort(self, name: str) -> None:
        """Note which tensor of the base one of the adapter's changes."""
        own = re.sub(r"^base_model\.model\.", "", name)
        own = re.sub(r"\.(base_layer|modules_to_save(\.default)?|original_module)(?=\.)", "", own)
        module, kind = own, ""
        for part in PARTS:
            before, separator, after = own.rpartition(f".{part}")
            if separator and after in ("", ".weight", ".default", ".default.weight"):
                module, kind = before, part
        if not kind:
            self.whole[self._in_base(own) or own] = name
            return
        target = self._in_base(f"{module}.weight")
        if target is None:
            raise FileError(
                f"its adapter changes {short(module, 200)}, which the base model does not store"
            )
        change = self.changes.setdefault(target, _Change())
        change.parts[kind], change.module = name, module

    def _in_base(self, name: str) -> str | None:
        for part, other in self.family.renamed:
            name = re.sub(part, other, name)
        prefix = self.family.prefix
        for candidate in (name, name.removeprefix(prefix), prefix + name):
            if candidate in self.base or candidate in self.head:
                return candidate
        return None

    def __contains__(self, name: str) -> bool:
        return name in self.base or name in self.whole or name in self.head

    def __len__(self) -> int:
        return len(set(self))

    def __iter__(self) -> Iterator[str]:
        yield from self.base
        yield from self.head
        yield from (name for name in self.whole if name not in (*self.base, *self.head))

    def __getitem__(self, name: str) -> Tensor:
        if name in self.whole:
            tensor = self.tensors[self.whole[name]]
        else:
            tensor = self.base[self.head.get(name, name)]
        change = self.changes.get(name)
        return tensor if change is None else self._merged(tensor, change)

    def _merged(self, weight: Tensor, change: _Change) -> Tensor:
        """The weight with A and B, computed in float64."""
        parts = {kind: self.tensors[name].double() for kind, name in change.parts.items()}
        is_table = "lora_embedding_A" in parts
        middle = "embedding_" if is_table else ""
        first, second = (parts.get(f"lora_{middle}{end}") for end in "AB")
        is_turned = is_table or bool(self.settings.get("fan_in_fan_out"))
        turned = weight.shape[::-1] if is_turned else weight.shape
        if first is None or second is None or (len(second), first.shape[-1]) != tuple(turned):
            shapes = [tuple(part.shape) for part in parts.values()]
            raise FileError(
                f"its adapter's {short(change.module, 200)} has {shapes}, which do not fit the "
                f"weight, {tuple(weight.shape)}"
            )
        delta = self._scale(change.module, len(first)) * (second @ first)
        changed = weight.double() + (delta.T if is_turned else delta)
        magnitude = parts.get("lora_magnitude_vector")
        if magnitude is not None:
            rows = changed.T if is_turned else changed
            rows = magnitude.reshape(-1, 1) / torch.linalg.vector_norm(rows, dim=1)[:, None] * rows
            changed = rows.T if is_turned else rows
        return changed

    def _scale(self, module: str, rank: int) -> float:
        alpha = self.settings.get("lora_alpha", 8)
        for pattern, value in (self.settings.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
                break
        return float(alpha) / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)


def _check(settings: Mapping[str, Any]) -> None:
    """Refuse what is not merged here."""
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise FileError(f"its {CONFIG} has peft_type {kind!r:.80}; only 'LORA' can be merged")
    for name in UNSUPPORTED:
        if settings.get(name):
            raise FileError(f"its {CONFIG} sets {name}, which is not supported; {ADVICE}")
    with untrusted.guarded(f"its {CONFIG} has a value that does not fit"):
        untrusted.finite(settings.get("lora_alpha", 8), "lora_alpha")
        for pattern, alpha in (settings.get("alpha_pattern") or {}).items():
            untrusted.finite(alpha, f"the alpha of {pattern}")
    start = settings.get("init_lora_weights")
    if start not in PLAIN_STARTS:
        raise FileError(
            f"its {CONFIG} has init_lora_weights {start!r:.80}, which changes the base model; "
            f"{ADVICE}"
        )
    patterns = settings.get("alpha_pattern") or {}
    if not isinstance(patterns, Mapping) or not all(map(PATTERN.fullmatch, patterns)):
        raise FileError(f"its {CONFIG} has an alpha_pattern of another form; {ADVICE}")

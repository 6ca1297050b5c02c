"""Probe the heads of a decoder by any of its names."""

from collections.abc import Sequence
from typing import Any

import torch

from pellucid.errors import ArgumentError
from pellucid.lens.probes import ProbeTable, probe_heads
from pellucid.lens.probes.checking import LEAST
from pellucid.lens.probes.probing import LENGTH, MOST, TEXTS, check_options
from pellucid.readers import open_checkpoint
from pellucid.readers.forward_pass import Step


def probe_model(
    model: str | None,
    *,
    probes: Sequence[str] | None = None,
    length: int | None = None,
    texts: int = TEXTS,
    most: int = MOST,
    controls: int = LEAST,
    step: Step,
    **options: Any,
) -> tuple[str, ProbeTable]:
    """Open a decoder, and probe its heads.

    Args:
        model: as for `open_checkpoint`.
        probes, texts, most, controls, options: as for `probe_heads`.
        length: the same; None is 128, or as many as the model has positions.
        step: called with the name of the step, its progress and its total.

    Returns:
        The model's name, and the table.

    Raises:
        ArgumentError: the model is no decoder, or has fewer positions; and as `probe_heads`.
        FileError: the model cannot be opened.
        UnknownNameError: as `probe_heads`.
    """
    check_options(
        probes,
        length=LENGTH if length is None else length,
        texts=texts,
        most=most,
        controls=controls,
    )
    step("opening the model", 0, 1)
    checkpoint = open_checkpoint(model, whole=True, writes=True)
    name, limit = checkpoint.name, checkpoint.limit
    kind = "encoder-decoder" if checkpoint.is_both else getattr(checkpoint.model, "kind", "decoder")
    if kind != "decoder":
        raise ArgumentError(f"{name} is an {kind}; --probe needs a decoder")
    checkpoint.run(input_ids=torch.zeros(1, 2, dtype=torch.int64))  # or it says why it does not
    if length is None:
        length = LENGTH if limit is None else min(LENGTH, limit)
    elif limit is not None and length > limit:
        raise ArgumentError(f"--length is {length:,}, but {name} has {limit:,} positions")
    try:
        table = probe_heads(
            checkpoint.model,
            checkpoint.tokenizer,
            probes=probes,
            length=length,
            progress=step,
            texts=texts,
            most=most,
            controls=controls,
            **options,
        )
    except ArgumentError as error:
        raise ArgumentError(f"{name}: {error}") from error
    return name, table

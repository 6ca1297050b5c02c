"""ablate(): which heads of any model matter."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.ablation.effects import Ablation
from pellucid.ablation.every_head import CONTROLS, TOP, Step, knock_out_heads
from pellucid.ablation.knock_outs import By
from pellucid.ablation.measures import ABOUT, UNKNOWN, Answer, Distributions, fall
from pellucid.ablation.together import SetEffect, knock_out_together
from pellucid.ablation.trial import Subject, runs_of
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens.layer_selection import Layers


def ablate(
    model: nn.Module,
    inputs: Mapping[str, Tensor] | Tensor,
    *,
    measure: str | Callable[[Any], Tensor] = "kl",
    targets: Tensor | None = None,
    by: By = "zero",
    layers: Layers | None = None,
    controls: int = CONTROLS,
    top: int = TOP,
    seed: int = 0,
    tokenizer: Any = None,
    resume: str | Path | None = None,
    progress: Step = lambda name, done, of: None,
) -> Ablation:
    """Knock out every head of a model in turn, and compare those that matter most with random ones.

    A head is knocked out by putting zeros, or the mean of its output over the queries, in place of
    its output (Michel et al. 2019, "Are Sixteen Heads Really Better than One?"). Heads of a layer
    run together in a batch, and only from their own block on.

    Two things say whether an effect is large. `above` is the share of the other heads whose effect
    is smaller. `random`, `beaten` and `chance` compare it with random heads of the same size: one
    that writes vectors as long at every position, in the space in which this head can write, turned
    by a random rotation, takes its place, and is knocked out in turn. A head `matters` if it does
    more than 95% of random heads; `Ablation.controls` has the effect of each of these.

    Args:
        model: any model that can be watched, in eval mode.
        inputs: of one text, (1, tokens) each, by the names of the model's arguments; or ids.
        measure: "kl", the KL divergence of the next token's distribution from the plain run's, in
            nats, mean over positions; "loss", the rise of its cross-entropy; or a function from the
            model's output to a number for each item, (items,), whose fall is measured.
        targets: (positions,) the token that follows each, -100 where it is not known; by default
            the next one of the text.
        by: "zero" or "mean".
        layers: as for `watch`.
        controls: how many random heads to try for each of the heads that matter most; 0 is none.
        top: for how many heads.
        seed: of the random heads.
        tokenizer: for the roles of heads, as for `watch`.
        resume: a file to which figures go as they come, and from which a stopped run goes on.
        progress: called with the name of the step, its progress and its total.

    Raises:
        ArgumentError: an option does not fit, the model is in training mode, there is more than
            one text, no token follows any, or no attention can be recorded.
        TypeMismatchError: an input is not a tensor.
        UnknownNameError: there is no such layer; or, with controls, the output projection of an
            attention is not found.
        ExistsError, FileError: the file to resume is another, or cannot be written.
    """
    subject = _subject(model, inputs, measure, targets, tokenizer)
    return knock_out_heads(
        subject,
        by=by,
        layers=layers,
        controls=controls,
        top=top,
        seed=seed,
        resume=None if resume is None else Path(resume),
        step=progress,
    )


def ablate_together(
    model: nn.Module,
    inputs: Mapping[str, Tensor] | Tensor,
    heads: Sequence[str],
    *,
    measure: str | Callable[[Any], Tensor] = "kl",
    targets: Tensor | None = None,
    by: By = "zero",
    layers: Layers | None = None,
    controls: int = CONTROLS,
    seed: int = 0,
    tokenizer: Any = None,
    progress: Step = lambda name, done, of: None,
) -> SetEffect:
    """Knock out several heads together, and compare them with random sets of as many other heads.

    Args:
        model, inputs, measure, targets, by, seed, tokenizer, progress: as of `ablate`.
        heads: heads, like "5.3" (layer and head, after a letter if stacks share numbers, as in
            `pellucid.lens.heads`); or roles that heads have on this text, like "previous token".
        layers: those whose heads are meant, and from which random sets are drawn.
        controls: how many random sets to try; fewer where there are not as many.

    Raises:
        ArgumentError: as of `ablate`, or there are too few other heads.
        UnknownNameError: there is no such head, or none of such a role.
    """
    return knock_out_together(
        _subject(model, inputs, measure, targets, tokenizer),
        heads,
        by=by,
        layers=layers,
        controls=controls,
        seed=seed,
        step=progress,
    )


def _subject(
    model: nn.Module,
    inputs: Mapping[str, Tensor] | Tensor,
    measure: str | Callable[[Any], Tensor],
    targets: Tensor | None,
    tokenizer: Any,
) -> Subject:
    """What is measured; arguments as of `ablate`."""
    named: Mapping[str, Tensor] = inputs if isinstance(inputs, Mapping) else {"": inputs}
    tensors = dict(named)
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeMismatchError(f"inputs must be tensors; '{name}' is {type(tensor).__name__}")
    if any(tensor.ndim < 2 or len(tensor) != 1 for tensor in tensors.values()):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors.values())
        raise ArgumentError(f"inputs must be of one text, (1, tokens) each, not {shapes}")
    measured: Distributions | Answer
    if callable(measure):
        measured = Answer(
            name="answer", about="fall of the measure", read=_columns(measure), change=fall
        )
    else:
        if measure not in ("kl", "loss"):
            raise ArgumentError(f"measure must be 'kl', 'loss' or a function, not {measure!r}")
        if targets is None:
            targets = _next_tokens(tensors)
        measured = Distributions(name=measure, about=ABOUT[measure], targets=targets)
        if measure == "loss" and not measured.known:
            raise ArgumentError("the loss is that of a token that follows: give two or more tokens")
    call: Callable[..., Any] = model
    if "" in named:
        call = lambda **options: model(options.pop(""), **options)  # noqa: E731
    return Subject(
        model=model,
        run=runs_of(model, tensors, call),
        tokens=sum(tensor.shape[1] for name, tensor in tensors.items() if "mask" not in name),
        measure=measured,
        tokenizer=tokenizer,
    )


def _columns(measure: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    return lambda output: measure(output).reshape(-1, 1)


def _next_tokens(inputs: Mapping[str, Tensor]) -> Tensor:
    """The token that follows each of the text or, in an encoder-decoder, of the target."""
    for name in ("decoder_input_ids", "target", "input_ids", "ids", ""):
        if name in inputs:
            ids = inputs[name][0]
            return torch.cat([ids[1:], ids.new_tensor([UNKNOWN])])
    raise ArgumentError(f"targets must be given: none of {', '.join(inputs)} holds the text's ids")

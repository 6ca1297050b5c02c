"""AttnLRP: relevance that flows back from a logit to the tokens by rules for each kind of layer."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError
from pellucid.lens.module_names import within
from pellucid.lens.recorder import watch
from pellucid.lens.recording import Recording
from pellucid.lens.tracing.frozen_activations import freeze_activations
from pellucid.lens.tracing.frozen_hooks import (
    before_blocks,
    check_evaluates,
    freeze_norms,
    graph_from_tables,
    is_biased,
    ratio,
    with_gradient_of,
)
from pellucid.lens.tracing.frozen_norms import FrozenNorm
from pellucid.lens.tracing.parts import Attention, Feed, Parts, parts_of
from pellucid.lens.tracing.question import Answer, Question
from pellucid.lens.tracing.shares import Shares

HALF = 0.5
"""What each factor of a product gets of the product's relevance."""


@dataclass(eq=False, slots=True)
class _Kept:
    """Tensors of the graph whose relevance is asked for: each number times its gradient."""

    starts: list[Tensor] = field(default_factory=list)
    contexts: dict[str, Tensor] = field(default_factory=dict)
    """Before their relevance is divided between weights and values."""
    projected: dict[str, list[Tensor]] = field(default_factory=dict)
    shares: dict[str, Tensor] = field(default_factory=dict)
    """Of each column of a projection that gives query, key and value: (width,)."""
    biased: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Outputs, and the biases in them."""


def relevance_rules(question: Question, tokenizer: Any) -> tuple[Answer, Shares]:
    """How relevant each token is to a logit, layer by layer: AttnLRP.

        linear layer    relevance in proportion to the terms of the sum; its bias absorbs some
        a * b           half to each: attention weights and values, gate and input of a gated part,
                        and query and key
        softmax         its Taylor expansion at the scores, x_i * (R_i - s_i * sum of R)
        activation      all to its input
        norm            as a linear layer, with the scale that it had

    These rules are gradients times inputs of a model whose products, activations and norms have
    other gradients. What biases and softmaxes absorb is counted, so that all adds up to the logit.

    Raises:
        ArgumentError: the model has experts, or attention with other projections than of query,
            key and value, for which there is no rule here.

    Source: Achtibat et al. 2024, "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for
    Transformers", sections 3.1 to 3.3.
    """
    check_evaluates(question.model)
    parts, kept = parts_of(question.model), _Kept()
    for feed in parts.feeds:
        if not feed.ups:
            raise ArgumentError(
                f"lrp has no rule for '{feed.name}', whose linear layers are not known (experts, "
                "for instance); use another method"
            )
    for attention in parts.attentions:
        if not attention.projections:
            raise ArgumentError(
                f"lrp has no rule for '{attention.name}', whose projections of query, key and "
                "value are not known (latent attention, for instance); use another method"
            )
    with ExitStack() as stack:
        seen = stack.enter_context(watch(question.model, values=True, tokenizer=tokenizer))
        stack.enter_context(torch.enable_grad())
        for handle in (*graph_from_tables(question.model), *_hooks(parts, kept)):
            stack.callback(handle.remove)
        answer = question.ask(is_linear=True)
    _tell_values_apart(parts, kept, seen)
    projected = [x for each in kept.projected.values() for x in each]
    kept.biased = _after_starts(kept)
    outputs = [output for output, _ in kept.biased]
    tensors = [*kept.starts, *kept.contexts.values(), *projected, *outputs]
    gradients = torch.autograd.grad(answer.number, tensors, allow_unused=True)
    known: dict[int, Tensor | None] = {id(x): g for x, g in zip(tensors, gradients, strict=True)}

    def relevance(x: Tensor) -> Tensor:
        """(tokens, width) float64, on the CPU."""
        gradient = known[id(x)]
        if gradient is None:
            return torch.zeros(x.shape[1:], dtype=torch.float64)
        product: Tensor = gradient[0].double() * x[0].detach().double()
        return product.cpu()

    *sources, last = kept.starts
    shares = Shares(relevance(last).sum(-1))
    if sources:
        shares.source_tokens = relevance(sources[0]).sum(-1)
    softmax = 0.0
    for name, context in kept.contexts.items():
        heads = seen.record(name).shape[-3]
        arrived = relevance(context).unflatten(-1, (heads, -1)).sum((0, 2))
        shares.heads[name] = arrived
        left = sum(float(relevance(x).sum()) for x in kept.projected[name])
        softmax += float(arrived.sum()) - left
    biases = answer.bias
    for output, bias in kept.biased:
        gradient = known[id(output)]
        if gradient is not None:
            biases += float((gradient.double() * bias.detach().double()).sum())
    shares.absorbed = {"softmax": softmax, "biases": biases}
    return answer, shares


def _after_starts(kept: _Kept) -> list[tuple[Tensor, Tensor]]:
    """The biases but those of embeddings, whose relevance is that of the tokens."""
    if not kept.biased:
        return []
    outputs = [output for output, _ in kept.biased]
    whole = sum((x.sum() for x in kept.starts[1:]), kept.starts[0].sum())
    before = torch.autograd.grad(whole, outputs, retain_graph=True, allow_unused=True)
    return [
        biased for biased, is_before in zip(kept.biased, before, strict=True) if is_before is None
    ]


def _tell_values_apart(parts: Parts, kept: _Kept, seen: Recording) -> None:
    """Find the columns of values in projections that give query and key as well: families lay them
    out in many ways.
    """
    for attention in parts.attentions:
        if len(attention.projections) == 1 and attention.name in kept.projected:
            [output], value = kept.projected[attention.name], seen.record(attention.name).value
            assert value is not None
            [gradient] = torch.autograd.grad(value.sum(), output, retain_graph=True)
            is_value = gradient.flatten(0, -2).abs().sum(0) > 0
            kept.shares[attention.name] = torch.where(is_value, 1.0, HALF).to(output.dtype)


def _hooks(parts: Parts, kept: _Kept) -> list[Any]:
    def keep_bias(module: nn.Linear, inputs: tuple[Any, ...], output: Tensor) -> None:
        kept.biased.append((output, module.bias))

    def norm(name: str, frozen: FrozenNorm, output: Tensor) -> Tensor:
        # What is lost between projections and contexts is counted where softmaxes are.
        if frozen.bias is not None and not any(
            within(name, attention.name) for attention in parts.attentions
        ):
            kept.biased.append((output, frozen.bias))
        return output

    def start(block: str, x: Tensor) -> None:
        if block in starts:
            kept.starts.append(x)

    starts = parts.starts()
    handles: list[Any] = [
        *freeze_norms(parts.modules, norm),
        *freeze_activations(parts),
        *before_blocks(parts, start),
    ]
    for module in parts.modules.values():
        if is_biased(module):  # before the hooks below, which change gradients
            handles.append(module.register_forward_hook(keep_bias))
    for attention in parts.attentions:
        handles += _of_attention(parts, attention, kept)
    for feed in parts.feeds:
        handles += _of_feed(parts, feed)
    return handles


def _of_attention(parts: Parts, attention: Attention, kept: _Kept) -> list[Any]:
    """Half of a context's relevance goes to the values, and a quarter each to query and key."""

    def context(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        kept.contexts[attention.name] = halved = _scaled(inputs[0], HALF)
        return (halved, *inputs[1:])

    def projection(place: int) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            kept.projected.setdefault(attention.name, []).append(output)
            if len(attention.projections) == 1:  # query, key and value, told apart afterwards
                joint = output.clone()
                if joint.requires_grad:
                    joint.register_hook(lambda g: g * kept.shares.get(attention.name, 1))
                return joint
            # A copy, as some models clip in place.
            return output.clone() if place == 2 else _scaled(output, HALF)

        return hook

    modules = parts.modules
    return [
        modules[attention.output].register_forward_pre_hook(context),
        *(
            modules[name].register_forward_hook(projection(place))
            for place, name in enumerate(attention.projections)
        ),
    ]


def _of_feed(parts: Parts, feed: Feed) -> list[Any]:
    """All relevance of an activation goes to its input, half of a gated product to each factor."""
    factors: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            factors[name] = output

        return hook

    def inner(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        product = inputs[0]
        halves = [x.split(product.shape[-1], -1) for x in factors.values()]  # gate and input in one
        each = [x for parts in halves for x in parts]
        linear = sum(ratio(product, x) * x / len(each) for x in each)
        factors.clear()
        assert isinstance(linear, Tensor)
        return (with_gradient_of(product, linear), *inputs[1:])

    modules = parts.modules
    return [
        *(modules[name].register_forward_hook(keep(name)) for name in feed.ups),
        modules[feed.down].register_forward_pre_hook(inner),
    ]


def _scaled(x: Tensor, factor: float | Tensor) -> Tensor:
    """The same numbers, with their gradients times a factor."""
    return with_gradient_of(x, x * factor)

"""residual_stream(): a run of a model in which each number is a sum of named parts.

A transformer's blocks read from a residual stream and add to it (Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits"). While a stream is open, the outputs of
embeddings, attentions and feed-forward parts are leaves of the graph, and norms are linear, with
the scale that they had. All that lies between is then affine: a number that the model computes from
the stream is the sum of each leaf times the number's gradient there, plus what biases give. The
numbers themselves are those of the model.
"""

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens.module_names import within
from pellucid.lens.recorder import watch
from pellucid.lens.recording import Recording
from pellucid.lens.tracing.frozen_activations import freeze_activations
from pellucid.lens.tracing.frozen_hooks import (
    before_blocks,
    check_evaluates,
    first_of,
    freeze_norms,
    is_biased,
    is_table,
    replaced,
    without_graph,
)
from pellucid.lens.tracing.frozen_norms import FrozenNorm
from pellucid.lens.tracing.parts import Parts, layer_of, parts_of
from pellucid.lens.tracing.written import ATTENTION, BIAS, FEED, TOKENS, Source, Start, Written

__all__ = ["ResidualStream", "residual_stream"]


class ResidualStream:
    """What a model wrote to its residual stream in one run, as `residual_stream` opens it."""

    def __init__(self, model: nn.Module, tokenizer: Any = None, *, scores: bool = True) -> None:
        """See `residual_stream`; without `scores`, no graph is made of them."""
        if not isinstance(model, nn.Module):
            raise TypeMismatchError(f"model must be a torch.nn.Module, not {type(model).__name__}")
        check_evaluates(model)
        self.parts: Parts = parts_of(model)
        self.seen: Recording = watch(model, values=True, tokenizer=tokenizer)
        """The attention of the run, values included."""
        self.written: list[Written] = []
        """In the order in which the model wrote."""
        self.norms: list[FrozenNorm] = []
        """Norms of (batch, tokens, width), in call order."""
        self.blocks: dict[str, Start] = {}
        """What each block read."""
        self._scores = scores
        self._stack = ExitStack()

    def __enter__(self) -> "ResidualStream":
        with ExitStack() as stack:
            stack.enter_context(self.seen)  # type: ignore[arg-type]
            stack.enter_context(torch.enable_grad())
            for handle in self._hooks():
                stack.callback(handle.remove)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    # What is written.

    def _hooks(self) -> list[Any]:
        parts, modules = self.parts, self.parts.modules
        handles = [
            *freeze_norms(modules, self._norm),
            *before_blocks(parts, self._block),
            *without_graph(parts, attentions=not self._scores),
        ]
        # The last layer: some parts add the stream to what it gives (BLOOM).
        feeds = {feed.down if feed.ups else feed.name: feed.name for feed in parts.feeds}
        silent = {name for feed in parts.feeds for name in (feed.name, *feed.ups, feed.down)}
        for name, module in parts.outside().items():
            if is_table(module):
                handles.append(module.register_forward_hook(self._embedding(name)))
        for name, module in modules.items():
            if name in feeds:
                handles.append(module.register_forward_hook(self._feed(feeds[name])))
            if is_biased(module) and not any(within(name, part) for part in silent):
                handles.append(module.register_forward_hook(self._bias(name)))
        for attention in parts.attentions:
            hook = self._context(attention.name)
            handles.append(modules[attention.output].register_forward_pre_hook(hook))
        # Last, so that they read outputs with the leaves of biases.
        return [*handles, *freeze_activations(parts)]

    def _block(self, name: str, x: Tensor) -> None:
        self.blocks[name] = Start(x, len(self.written), len(self.norms))

    def _add(self, source: Source, tensor: Tensor, heads: int | None = None) -> Tensor:
        """A leaf with the numbers of a tensor."""
        torch.set_grad_enabled(True)  # where `without_graph` has switched it off
        leaf = self._of_items(tensor.detach()).requires_grad_()
        self.written.append(Written(source, leaf, leaf.detach(), len(self.norms), heads))
        return leaf.clone().view_as(tensor)  # to which a model may add in place, as Falcon does

    def _of_items(self, x: Tensor) -> Tensor:
        """(batch, tokens, width), where a block has joined its items (OPT); else as it is."""
        last = next(reversed(self.blocks.values()), None)
        if x.ndim == 2 and last is not None and len(x) == last.x.shape[:2].numel():
            return x.view(*last.x.shape[:2], -1)
        return x

    def _add_bias(self, name: str, bias: Tensor, output: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return output
        leaf = self._of_items(torch.zeros_like(output)).requires_grad_()
        value = bias.detach().view(*[1] * (leaf.ndim - bias.ndim), *bias.shape)
        layer = layer_of(name) if any(within(name, x) for x in self.parts.blocks) else None
        self.written.append(Written(Source(BIAS, name, layer), leaf, value, len(self.norms)))
        return output + leaf.view_as(output)

    def _norm(self, name: str, norm: FrozenNorm, output: Tensor) -> Tensor:
        if output.ndim == 3:
            self.norms.append(norm)
        return output if norm.bias is None else self._add_bias(name, norm.bias, output)

    def _embedding(self, name: str) -> Callable[..., Any]:
        kind = "token"
        if "type" in name:
            kind = "type"
        elif "position" in name or name.endswith("wpe"):
            kind = "position"

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            is_vector = isinstance(output, Tensor) and output.is_floating_point()
            given = inputs[0] if inputs else output
            has_ids = not (isinstance(given, Tensor) and given.is_floating_point())
            # BART's tables of positions are given vectors, for their size.
            if is_vector and (has_ids or isinstance(module, nn.Embedding)):
                source = Source(f"{kind} embedding", name)
                # Positions may be looked up without a batch, (tokens,).
                return (
                    self._add(source, output[None])[0]
                    if output.ndim == 2
                    else self._add(source, output)
                )
            return output

        return hook

    def _bias(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Linear, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            return self._add_bias(name, module.bias, output)

        return hook

    def _feed(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            source = Source(FEED, name, layer_of(name))
            return replaced(output, self._add(source, first_of(output)))

        return hook

    def _context(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
            heads = self.seen.record(name).shape[-3]
            source = Source(ATTENTION, name, layer_of(name))
            return (self._add(source, inputs[0], heads), *inputs[1:])

        return hook

    # What a number is the sum of.

    def amounts(
        self, number: Tensor, item: int = 0, each_head: bool = False
    ) -> dict[Source, Tensor]:
        """What each source gives to a number that the model computed in this run.

        Args:
            number: a tensor with one number, in the graph of the run; or the sum of one number for
                each token, of which each depends on its own token's stream.
            item: of the batch.
            each_head: each head of an attention, instead of all together.

        Returns:
            (tokens,) float64 for each source that reaches the number.

        Raises:
            ArgumentError: the model ran otherwise than once.
        """
        self.check_run()
        starts = [self.blocks[name] for name in self.parts.starts() if name in self.blocks]
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
            number,
            [*(start.x for start in starts), *(part.leaf for part in self.written)],
            retain_graph=True,
            allow_unused=True,
        )
        totals: dict[Source, Tensor] = {}
        each: list[Tensor | None] = []
        for part, gradient in zip(self.written, gradients[len(starts) :], strict=True):
            amounts = None if gradient is None else part.amounts(gradient, item)
            each.append(None if amounts is None else amounts.sum(0))
            if amounts is None:
                continue
            if part.heads is not None and each_head:
                totals |= zip(part.source.of_heads(part.heads), amounts, strict=True)
            else:
                totals[part.source] = totals.get(part.source, 0) + amounts.sum(0)
        for start, gradient in zip(starts, gradients, strict=False):
            first = start.table(self.written)
            named = [amount for amount in each[first : start.before] if amount is not None]
            if gradient is not None:
                products = gradient[item].double() * start.x[item].detach().double()
                rest = products.sum(-1) - sum(named, torch.zeros(len(products)).to(products))
                # Positions that are computed, or the only segment type, which is in no table.
                if not start.is_rounding(rest, products.abs().sum(-1)):
                    totals[self.unnamed()] = rest
        return totals

    def unnamed(self) -> Source:
        """The source of what the first block reads besides tables and biases: positions that are
        computed, or the only segment type, which is added without a look-up.
        """
        kinds = {part.source.kind for part in self.written}
        if TOKENS not in kinds:  # vectors in place of ids
            return Source("inputs", "")
        tables = [name for name, module in self.parts.outside().items() if is_table(module)]
        has_one_type = "type embedding" not in kinds and any("type" in name for name in tables)
        is_type = "position embedding" in kinds or has_one_type
        return Source("type embedding" if is_type else "position embedding", "")

    def check_run(self) -> None:
        """Refuse a run that did not happen, or happened twice.

        Raises:
            ArgumentError: it is so.
        """
        if not self.written:
            raise ArgumentError("the model did not run while the stream was open")
        names = [part.source.name for part in self.written if part.source.kind == ATTENTION]
        if len({*names}) < len(names):
            raise ArgumentError(
                "a block ran more than once while the stream was open: run the model once, on the "
                "whole text (of layers that share one block, as ALBERT's, open the model by "
                "pellucid.load, which gives each its own)"
            )


def residual_stream(model: nn.Module, *, tokenizer: Any = None) -> ResidualStream:
    """Run a model so that scores and logits can be taken apart by what they are sums of.

        with lens.residual_stream(model) as stream:
            model(ids)
        lens.why(stream, layer=3, head=1, query=7, key=2)

    The model computes what it always computes. Norms are linear to gradients while it runs: divided
    by what they observed, as constants. Gradients are on, whatever is around.

    Args:
        model: in eval mode, of Pellucid, or of a family of transformers whose blocks have an
            attention and a feed-forward part that add to a stream: of text, nearly all.
        tokenizer: as for `watch`.

    Raises:
        ArgumentError: the model is in training mode, or its blocks have parts of other names.
        TypeMismatchError: it is no torch.nn.Module.
    """
    return ResidualStream(model, tokenizer)

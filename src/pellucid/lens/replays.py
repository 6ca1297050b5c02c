"""A model run again from a later block on: nothing before a head that is knocked out changes.

What each block gave is kept, n vectors a block; blocks before the first one that is edited give
that again. The last block's output goes to the end of the model, such as the projection to a
vocabulary, for a few positions at a time.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

CLOSE = 1e-4
"""How far a run from the middle may be from the plain one, as a share of the largest number."""


class _Reached(BaseException):
    """The last block is done. Not an Exception: models and readers turn those into errors."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


class Replay:
    """One input of a model: run in full once, and then from any block on.

    Blocks are the items of `nn.ModuleList`s with attention inside. Where they do not simply follow
    one another (a block runs twice, or later ones read more than its output), which a first run
    from the middle tells, each run is a full one. A compiled model runs as it is written.
    """

    def __init__(
        self, model: nn.Module, run: Callable[[int], Any], attending: Sequence[str]
    ) -> None:
        """Run the model once.

        Args:
            model: in eval mode.
            run: runs it on so many copies of the input, without gradients.
            attending: the names of the modules that attend.
        """
        self._run = _eagerly(run)
        blocks = _blocks(model, attending)
        self._modules: dict[str, nn.Module] = blocks
        self._order: list[str] = []
        self._outputs: dict[str, Any] = {}
        self._skips = self._ends = False
        self.output = self._plain()
        """Of the plain run."""
        self._block_of = {name: _block_of(name, blocks) for name in attending}
        if len(set(self._order)) == len(self._order) and len(self._order) > 1:
            self._skips = self._is_same_from_the_middle()
            self._ends = self._skips and self._is_same_at_the_end()

    @property
    def ends_alone(self) -> bool:
        """Whether `end` gives the model's output for some positions."""
        return self._ends

    def first(self, names: Sequence[str]) -> int:
        """The number of the first block in which one of these attends; of none, past all."""
        if not self._skips:
            return 0
        blocks = [self._block_of[name] for name in names]
        indices = ((self._order.index(block) if block in self._order else 0) for block in blocks)
        return min(indices, default=len(self._order))

    def through(self, start: int, items: int) -> Any:
        """The output of the model for copies of the input, run from a block on."""
        with self._giving(start, items):
            return self._run(items)

    def last_block(self, start: int, items: int) -> Tensor:
        """What the last block gives, (items, tokens, width), run from a block on."""
        last = self._modules[self._order[-1]]

        def reached(module: nn.Module, inputs: Any, output: Any) -> None:
            raise _Reached(output)

        handle = last.register_forward_hook(reached)
        try:
            with self._giving(start, items):
                self._run(items)
        except _Reached as end:
            return _first(end.output)
        finally:
            handle.remove()
        raise AssertionError("the last block did not run")

    @property
    def plain_last_block(self) -> Tensor:
        """(1, tokens, width)"""
        return _first(self._outputs[self._order[-1]])

    def end(self, hidden: Tensor) -> Any:
        """The output of the model, given what its last block gives at some positions.

        Args:
            hidden: (items, positions, width)
        """
        with self._giving(len(self._order), 1, hidden):
            return self._run(1)

    def _plain(self) -> Any:
        def kept(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def keep(module: nn.Module, inputs: Any, output: Any) -> None:
                self._order.append(name)
                self._outputs[name] = _map_tensors(output, Tensor.clone)

            return keep

        handles = [block.register_forward_hook(kept(name)) for name, block in self._modules.items()]
        try:
            return self._run(1)
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _giving(self, start: int, items: int, hidden: Tensor | None = None) -> Iterator[None]:
        """Blocks before number `start` give what they gave; the last of them `hidden`, if given."""
        before: dict[str, Any] = {}
        try:
            for number, name in enumerate(self._order[:start]):
                module, output = self._modules[name], self._outputs[name]
                if number < start - 1:  # which the next block does not look at
                    output = _map_tensors(output, lambda tensor: _copies(tensor, items))
                elif hidden is None:
                    output = _map_tensors(output, lambda tensor: _copies(tensor, items).clone())
                else:
                    output = _with_first(output, hidden)
                before[name] = vars(module).get("forward")
                module.forward = _gives(output)
            yield
        finally:
            for name, forward in before.items():
                module = self._modules[name]
                if forward is None:
                    del module.forward
                else:
                    module.forward = forward

    def _is_same_from_the_middle(self) -> bool:
        with suppress(Exception):
            again = self.last_block(len(self._order) // 2, 2)
            return _are_close(again, self.plain_last_block)
        return False

    def _is_same_at_the_end(self) -> bool:
        whole = tensor_of(self.output)
        hidden = self.plain_last_block
        with suppress(Exception):
            part = tensor_of(self.end(hidden[:, -2:-1].repeat(2, 1, 1)))
            return part.shape[1] == 1 and _are_close(part, whole[:, -2:-1])
        return False


def _eagerly(run: Callable[[int], Any]) -> Callable[[int], Any]:
    """Runs a compiled model as it is written, as interventions do, and compiles nothing."""
    if "torch._dynamo" not in sys.modules:  # slow to import, and nothing is compiled without it
        return run

    def eagerly(items: int) -> Any:
        with torch.compiler.set_stance("force_eager"):
            return run(items)

    return eagerly


def tensor_of(output: Any) -> Tensor:
    """The logits or, without any, the first tensor of a model's output."""
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if isinstance(output, Tensor):
        return output
    values = output.values() if hasattr(output, "values") else output
    return next(value for value in values if isinstance(value, Tensor))


def _gives(output: Any) -> Callable[..., Any]:
    return lambda *_, **__: output


def _blocks(model: nn.Module, attending: Sequence[str]) -> dict[str, nn.Module]:
    """The items of the outermost lists that hold modules that attend, by name."""
    modules = dict(model.named_modules())
    blocks: dict[str, nn.Module] = {}
    for name in attending:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            inside = ".".join(parts[:depth])
            if isinstance(modules.get(inside), nn.ModuleList):
                for number, block in enumerate(modules[inside]):
                    blocks.setdefault(f"{inside}.{number}", block)
                break
    return blocks


def _block_of(name: str, blocks: dict[str, nn.Module]) -> str:
    return next((block for block in blocks if f"{name}.".startswith(f"{block}.")), "")


def _map_tensors(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """An output whose tensors are changed."""
    if isinstance(output, Tensor):
        return change(output)
    if type(output) in (tuple, list):
        return type(output)(_map_tensors(item, change) for item in output)
    return output


def _first(output: Any) -> Tensor:
    hidden = output if isinstance(output, Tensor) else output[0]
    assert isinstance(hidden, Tensor)
    return hidden


def _with_first(output: Any, hidden: Tensor) -> Any:
    return hidden if isinstance(output, Tensor) else type(output)((hidden, *output[1:]))


def _copies(tensor: Tensor, items: int) -> Tensor:
    return tensor.expand(items, *tensor.shape[1:]) if tensor.ndim and len(tensor) == 1 else tensor


def _are_close(replayed: Tensor, plain: Tensor) -> bool:
    if replayed.shape[1:] != plain.shape[1:]:
        return False
    return bool((replayed - plain).abs().max() <= CLOSE * plain.abs().max())

"""`intervene`, and the edits that it offers."""

import math
from typing import Any, Literal

from torch import Tensor, nn

from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError
from pellucid.lens.interventions.editor import Editor
from pellucid.lens.interventions.edits import Stage
from pellucid.lens.interventions.selection import Chosen, Selection
from pellucid.lens.interventions.sources import GivenWeights, Recorded
from pellucid.lens.layer_selection import Layers
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording, as_recording

PARTS = ("output", "pattern", "query", "key", "value")


class Intervention(Editor):
    """Edits of a model's attention, which hold while it is open; `intervene` makes it.

    All edits name what they change in the same words:

    - layer: layer numbers (the first number in a module's name; negative numbers count from the
      last layer), module names, or patterns of names, as for `watch`; None = every attention.
    - head: query heads.
    - queries, keys: positions in the text; in a generation, of the whole text so far, so that one
      edit holds for the prompt and for all tokens that follow. Negative positions count from the
      end of the text as it is at each call.
    - items: items of the batch. With the same text several times in a batch, each item can have
      an edit of its own.

    head, queries, keys and items are each an int, a list, a slice, flags (a bool tensor), or None
    for all.
    """

    def knock_out(
        self,
        layer: Layers | None = None,
        head: Chosen = None,
        queries: Chosen = None,
        keys: Chosen = None,
        *,
        items: Chosen = None,
        by: Literal["zero", "mean"] | Recording | Record = "zero",
        renormalize: bool = True,
    ) -> None:
        """Knock out heads, or links from queries to keys.

        Without keys, the output of the heads at these queries is replaced. With keys, the links
        from these queries to these keys are cut: no such query sees such a key. A row that loses
        all its weight gives zeros.

        Args:
            layer, head, queries, keys, items: what is knocked out; see the class.
            by: what replaces the output of heads: "zero"; "mean", the mean of the output over the
                queries of the item, without padding; or the recording of another text, with
                values, whose outputs at the same positions are taken (resampling).
            renormalize: whether the weights of the other keys are normalised again, as if the
                links had been masked. If False, the links are dropped from the sum and the others
                keep their weights.

        Raises:
            ArgumentError: the edit contradicts another one, chooses nothing, or mixes options.
            UnknownNameError, TypeMismatchError, ShapeError: layer or another choice is not valid.
        """
        text = _text("knock_out", layer, head, queries, keys, items)
        source = None
        if isinstance(by, Recording | Record):
            source = Recorded(as_recording(by))
        elif by not in ("zero", "mean"):
            raise ArgumentError(f'by must be "zero", "mean" or a recording; got {by!r}')
        if keys is None:
            if not renormalize:
                raise ArgumentError("renormalize=False is for links: give keys=")
            options = {"is_mean": by == "mean", "source": source}
            self._add(text, Stage.OUTPUT, layer, head, queries, items, **options)
            return
        if by != "zero":
            raise ArgumentError("by= is for whole heads: links can only be cut")
        stage = Stage.SCORES if renormalize else Stage.WEIGHTS
        self._add(text, stage, layer, head, queries, items, keys=Selection.of("key", keys))

    def scale(
        self,
        layer: Layers | None = None,
        head: Chosen = None,
        factor: float | None = None,
        *,
        queries: Chosen = None,
        items: Chosen = None,
    ) -> None:
        """Multiply the output of heads by a factor.

        Their weights stay, and a watch records them as they are.

        Args:
            layer, head, queries, items: what is scaled; see the class.
            factor: any finite number; 0 knocks the heads out.

        Raises:
            As `knock_out`.
        """
        factor = _number("factor", factor)
        text = _text("scale", layer, head, queries, None, items)
        self._add(text, Stage.OUTPUT, layer, head, queries, items, factor=factor)

    def steer(
        self,
        layer: Layers | None = None,
        head: Chosen = None,
        keys: Chosen = None,
        factor: float | None = None,
        *,
        queries: Chosen = None,
        items: Chosen = None,
    ) -> None:
        """Raise or lower the attention to keys: their weights times a factor, normalised again.

        That is exp(score) times the factor before the softmax (Zhang et al. 2023, "Tell Your Model
        Where to Attend", lower the other keys instead, which is the same).

        Args:
            layer, head, keys, queries, items: which links; see the class.
            factor: above 0; above 1 raises, below 1 lowers.

        Raises:
            As `knock_out`.
        """
        if keys is None:
            raise ArgumentError("steer needs keys: a factor on all of them changes nothing")
        factor = _number("factor", factor)
        if factor <= 0:
            raise ArgumentError(f"factor must be above 0, got {factor}; knock_out cuts links")
        text = _text("steer", layer, head, queries, keys, items)
        of_keys = Selection.of("key", keys)
        self._add(text, Stage.SCORES, layer, head, queries, items, keys=of_keys, factor=factor)

    def set_weights(
        self,
        layer: Layers | None = None,
        head: Chosen = None,
        weights: Tensor | None = None,
        *,
        queries: Chosen = None,
        items: Chosen = None,
    ) -> None:
        """Replace the weights of heads.

        Args:
            layer, head, queries, items: whose weights; see the class.
            weights: (queries, keys), (heads, queries, keys) or (items, heads, queries, keys) of
                those that are chosen, in ascending order; an axis of size one serves all. Keys are
                those of the text from its beginning; a step of a generation that has fewer takes
                the first ones. Rows need not sum to one.

        Raises:
            As `knock_out`; ShapeError if the sizes do not fit, here or in the call.
        """
        if not isinstance(weights, Tensor) or not weights.is_floating_point():
            raise TypeMismatchError("weights must be a float tensor")
        if not 2 <= weights.ndim <= 4 or not weights.numel():
            raise ShapeError(
                "weights must be (queries, keys), (heads, queries, keys) or (items, heads, "
                f"queries, keys), got shape {tuple(weights.shape)}"
            )
        if not bool(weights.isfinite().all()):
            raise ArgumentError("weights must be finite")
        text = _text("set_weights", layer, head, queries, None, items)
        source = GivenWeights(weights[(None,) * (4 - weights.ndim)])
        self._add(text, Stage.GIVEN, layer, head, queries, items, source=source)

    def patch(
        self,
        recording: Recording | Record,
        layer: Layers | None = None,
        head: Chosen = None,
        *,
        queries: Chosen = None,
        items: Chosen = None,
        part: Literal["output", "pattern", "query", "key", "value"] = "output",
    ) -> None:
        """Put what heads had in another run into this one (activation patching).

        The recording is of the same model. It has as many items, or one item, which serves all.
        Each head has its own query, key and value, even where several share a key in the model: a
        patched key is seen by the chosen heads alone.

        Args:
            recording: a watch, or what was loaded; with values=True for outputs and values.
            layer, head, items: what is patched; see the class.
            queries: the positions that are patched; of a key or a value, those of the keys.
            part: "output", the head's output; "pattern", its weights; or its "query", "key" or
                "value" alone.

        Raises:
            As `knock_out`; and when the model runs: UnknownNameError, ArgumentError, ShapeError or
            OutOfRangeError, if the recording lacks the module, the part, the items or a position.

        Source: Vig et al. 2020, "Investigating Gender Bias in Language Models Using Causal
        Mediation Analysis"; Heimersheim & Nanda 2024, "How to use and interpret activation
        patching".
        """
        if part not in PARTS:
            raise ArgumentError(f"part must be one of {', '.join(PARTS)}; got {part!r}")
        stage = {"output": Stage.OUTPUT, "pattern": Stage.GIVEN}.get(part, Stage.INPUT)
        text = f"patch of {part}, {_text('', layer, head, queries, None, items)}"
        source = Recorded(as_recording(recording))
        self._add(text, stage, layer, head, queries, items, source=source, part=part)


def _number(name: str, number: Any) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeMismatchError(f"{name} must be a number, got {number!r}")
    if number != number or math.isinf(number):
        raise ArgumentError(f"{name} must be finite, got {number}")
    return float(number)


def _text(method: str, layer: Any, head: Any, queries: Any, keys: Any, items: Any) -> str:
    """The call of a method, as short as it can be told."""
    given = {"layer": layer, "head": head, "queries": queries, "keys": keys, "items": items}
    parts = [f"{name}={_short(value)}" for name, value in given.items() if value is not None]
    return f"{method}({', '.join(parts)})"


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"<{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}>"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]} ..."


def intervene(model: nn.Module, *, everyone: bool = False) -> Intervention:
    """Change the attention of `model` while the context is open.

        with pellucid.intervene(model) as edit:
            edit.knock_out(layer=3, head=1)
            edit.knock_out(keys=0)  # nobody may look at the first token
            model(**inputs)

    Works on every model that `watch` records, through the same way in, and leaves nothing behind.
    Edits are exact: what the model's eager code gives with the links masked. They combine, may be
    added before or inside the `with`, are differentiable, and nest with `watch` in either order;
    the watch then records what was used. An edit that takes no effect raises an error at the end.

    Args:
        model: any `torch.nn.Module`. While an intervention is open, all compiled code of this
            program runs eagerly, and PyTorch's native fast paths of attention are off: outputs
            differ by rounding.
        everyone: whether edits hold on every thread and in every task, and not only in this
            context and in what is started in it.

    Raises:
        TypeMismatchError: model is not a module.
    """
    return Intervention(model, everyone=everyone)

"""`intervene`, and the edits that it offers."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens.interception.calls import Call
from pellucid.lens.interventions.application import edited
from pellucid.lens.interventions.edits import Edit, Region, Stage
from pellucid.lens.interventions.places import Place, Places
from pellucid.lens.interventions.selection import Chosen, Selection
from pellucid.lens.layer_selection import Layers, select_names
from pellucid.lens.mask_reader import MaskReader
from pellucid.lens.open_listener import OpenListener
from pellucid.lens.pieces import Keeper


class Intervention(OpenListener):
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

    edits = True
    _maker = "intervene(model)"

    def __init__(self, model: nn.Module, *, everyone: bool) -> None:
        self._listen_to(model, everyone)
        self._edits: list[Edit] = []
        self._entries: dict[Edit, list[tuple[Any, frozenset[str]]]] = {}
        self._masks, self._places = MaskReader(Keeper()), Places()
        self.unapplied: dict[str, str] = {}
        """Modules that attend in a way that cannot be edited, each with the reason."""
        self._called: set[str] = set()

    def knock_out(
        self,
        layer: Layers | None = None,
        head: Chosen = None,
        queries: Chosen = None,
        keys: Chosen = None,
        *,
        items: Chosen = None,
        by: Literal["zero", "mean"] = "zero",
        renormalize: bool = True,
    ) -> None:
        """Knock out heads, or links from queries to keys.

        Without keys, the output of the heads at these queries is replaced. With keys, the links
        from these queries to these keys are cut: no such query sees such a key. A row that loses
        all its weight gives zeros.

        Args:
            layer, head, queries, keys, items: what is knocked out; see the class.
            by: what replaces the output of heads: "zero", or "mean", the mean of the output over
                the queries of the item, without padding.
            renormalize: whether the weights of the other keys are normalised again, as if the
                links had been masked. If False, the links are dropped from the sum and the others
                keep their weights.

        Raises:
            ArgumentError: the edit contradicts another one, chooses nothing, or mixes options.
            UnknownNameError, TypeMismatchError, ShapeError: layer or another choice is not valid.
        """
        text = _text("knock_out", layer, head, queries, keys, items)
        if by not in ("zero", "mean"):
            raise ArgumentError(f'by must be "zero" or "mean"; got {by!r}')
        if keys is None:
            if not renormalize:
                raise ArgumentError("renormalize=False is for links: give keys=")
            self._add(text, Stage.OUTPUT, layer, head, queries, items, is_mean=by == "mean")
            return
        if by != "zero":
            raise ArgumentError(f"by={by!r} is for whole heads: links can only be cut")
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

    def clear(self) -> None:
        """Remove all edits so far, so that others can take their place.

        Raises:
            ArgumentError: an edit took no effect although the model ran.
        """
        try:
            if self._called:
                self._check_effects()
        finally:
            self._edits.clear()
            self._entries.clear()
            self._called.clear()
            self.unapplied.clear()

    def _add(
        self,
        text: str,
        stage: Stage,
        layer: Layers | None,
        head: Chosen,
        queries: Chosen,
        items: Chosen,
        **options: Any,
    ) -> None:
        if self._model is None:
            raise ArgumentError("this intervention is over; call pellucid.intervene for another")
        entries = []
        for entry in _entries_of(layer):
            entries.append((entry, frozenset(select_names(list(self._by_name), entry))))
        edit = Edit(
            text=text,
            stage=stage,
            names=frozenset().union(*(names for _, names in entries)) if entries else None,
            heads=Selection.of("head", head),
            queries=Selection.of("query", queries),
            items=Selection.of("item", items),
            **options,
        )
        for other in self._edits:
            if edit.contradicts(other):
                raise ArgumentError(f"{text} contradicts {other.text}: only one of them can hold")
        self._edits.append(edit)
        self._entries[edit] = entries

    # Questions and events of the interception.

    def wants(self, name: str) -> bool:
        return any(edit.is_of(name) for edit in self._edits)

    def on_edit(self, name: str, call: Call | str) -> Call | None:
        self._called.add(name)
        if isinstance(call, str):
            raise ArgumentError(
                f"the attention of '{name}' cannot be edited: it {call}; choose other layers"
            )
        place = self._places.of(name, call)
        edits = [edit for edit in self._edits if edit.is_of(name)]
        regions = [x for edit in edits if (x := _region(name, call, edit, place)) is not None]
        if not regions:
            return None
        regions.sort(key=lambda region: region.edit.stage)
        with torch.autocast(call.query.device.type, enabled=False):
            result = edited(name, call, regions, self._masks)
        for region in regions:
            region.edit.done.add(name)
        return result

    def on_missed(self, name: str, reason: str) -> None:
        if self.wants(name):
            self.unapplied[name] = reason

    def _finish(self, error: BaseException | None) -> None:
        if error is None:
            self._check_effects()

    def _check_effects(self) -> None:
        """Raise ArgumentError if an edit did nothing, as nobody would notice that."""
        for edit in self._edits:
            missed = {x: why for x, why in self.unapplied.items() if edit.is_of(x)}
            missed = {x: why for x, why in missed.items() if x not in edit.done}
            if missed:
                name, why = next(iter(missed.items()))
                raise ArgumentError(f"{edit.text} was not applied to '{name}', which {why}")
            idle = [entry for entry, names in self._entries[edit] if not names & edit.done]
            if not edit.done or idle:
                where = f" in layer {idle[0]!r}" if edit.done else ""
                raise ArgumentError(f"{edit.text} took no effect{where}: {self._why_not(edit)}")
            for chosen in (edit.queries, edit.keys):
                if chosen is not None and (left := chosen.never_met()):
                    raise ArgumentError(
                        f"{edit.text} took no effect at {chosen.what} {left}: no such position "
                        "was read"
                    )

    def _why_not(self, edit: Edit) -> str:
        if not any(edit.is_of(name) for name in self._called):
            known = ", ".join(sorted(self._called)[:3])
            return (
                f"no such module attended; those that did: {known}, ..."
                if known
                else "no attention of the model ran while the intervention was open"
            )
        return "no such position was read"


def _region(name: str, call: Call, edit: Edit, place: Place) -> Region | None:
    """What an edit changes in a call; None if none of its positions are in it."""
    batch, heads = call.query.shape[:2]
    device = call.query.device
    if place.is_uneven and not edit.queries.is_all:
        raise ArgumentError(
            f"{edit.text}: the texts of this batch differ in length, and so do the positions of "
            "their queries; generate one text at a time, or leave queries out"
        )
    items = edit.items.among(batch, f"the batch of '{name}'")
    numbers = edit.heads.among(heads, f"'{name}'")
    queries = call.query.shape[-2]
    rows = edit.queries.within(place.first_query, place.first_query + queries, place.query_total)
    cols = None
    if edit.keys is not None:
        cols = edit.keys.within(place.first_key, place.key_total, place.key_total)
        if cols is not None and not len(cols):
            return None
    if not items or not numbers or (rows is not None and not len(rows)):
        return None
    return Region(
        edit,
        torch.tensor(items, device=device),
        torch.tensor(numbers, device=device),
        None if rows is None else rows.to(device),
        None if cols is None else cols.to(device),
        place.first_query,
        place.first_key,
    )


def _entries_of(layer: Layers | None) -> list[int | str]:
    if layer is None:
        return []
    if isinstance(layer, str) or not isinstance(layer, Iterable):
        return [layer]
    entries = list(layer)
    if not entries:
        raise ArgumentError("an edit of no layer does nothing; leave it out")
    return entries


def _number(name: str, number: Any) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeMismatchError(f"{name} must be a number, got {number!r}")
    if number != number or abs(number) == float("inf"):
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

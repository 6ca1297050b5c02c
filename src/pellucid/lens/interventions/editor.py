"""What an intervention does while a model runs, and its errors for edits that did nothing."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError
from pellucid.lens.interception import call_stack, checkpointing
from pellucid.lens.interception.calls import CacheUpdate, Call, SoftmaxEdit
from pellucid.lens.interventions import softmax_edits
from pellucid.lens.interventions.application import edited
from pellucid.lens.interventions.edits import Edit, Stage
from pellucid.lens.interventions.places import Places
from pellucid.lens.interventions.regions import Region, region_of
from pellucid.lens.interventions.selection import Chosen, Selection
from pellucid.lens.layer_selection import Layers, select_names
from pellucid.lens.mask_reader import MaskReader
from pellucid.lens.open_listener import OpenListener
from pellucid.lens.pieces import Keeper
from pellucid.lens.running_calls import RunningCall
from pellucid.lens.unseen import unseen

MOST_NAMES = 3


class Editor(OpenListener):
    """Applies edits to the calls of one model."""

    edits = True
    _maker = "intervene(model)"

    def __init__(self, model: nn.Module, *, everyone: bool) -> None:
        self._listen_to(model, everyone)
        self._edits: list[Edit] = []
        self._doubtful: list[tuple[Edit, Edit]] = []
        """Pairs that contradict each other in calls of some sizes."""
        self._masks, self._places = MaskReader(Keeper()), Places()
        self.unapplied: dict[str, str] = {}
        """Modules that attend, or look so, and were not edited although an edit means them, each
        with the reason, such as that they did not run; complete once the intervention is over."""
        self._called: set[str] = set()
        self._latest_keys: dict[str, tuple[RunningCall, Tensor]] = {}
        """Of each module whose queries are fewer than its keys, the forward pass, and some keys."""

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
        names = list(self._by_name)
        edit = Edit(
            text=text,
            stage=stage,
            entries=[(x, frozenset(select_names(names, x))) for x in _entries_of(layer)],
            heads=Selection.of("head", head),
            queries=Selection.of("query", queries),
            items=Selection.of("item", items),
            **options,
        )
        for other in self._edits:
            if edit.contradicts(other):
                raise _contradiction(edit, other)
            if edit.contradicts(other, surely=False):
                self._doubtful.append((edit, other))
        self._edits.append(edit)

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
            self._doubtful.clear()
            self._called.clear()
            self._latest_keys.clear()
            self.unapplied.clear()

    # Questions and events of the interception.

    def wants(self, name: str) -> bool:
        return any(edit.is_of(name) for edit in self._edits)

    def on_edit(self, name: str, call: Call | str) -> Call | None:
        self._called.add(name)
        if isinstance(call, str):
            raise ArgumentError(
                f"the attention of '{name}' cannot be edited: it {call}; choose other layers"
            )
        if call.update is None and isinstance(call.key, Tensor):
            self._check_whole(name, call.query.shape[-2], call.key)
        size = (*call.query.shape, call.key.shape[-2])
        offset = None if call.rule is None else call.rule.offset
        regions = self._regions(name, (*size[:3], size[4]), call.query.device, call.update, offset)
        if not regions:
            return None
        with torch.autocast(call.query.device.type, enabled=False):
            result = edited(name, call, regions, self._masks)
        self._note(name, regions)
        self._check_again(name)
        return result

    def on_softmax_edit(
        self, name: str, scores: Tensor, weights: Tensor, key: Tensor, update: CacheUpdate | None
    ) -> SoftmaxEdit | None:
        self._called.add(name)
        if update is None:
            self._check_whole(name, scores.shape[2], key)
        regions = self._regions(name, tuple(scores.shape), scores.device, update, None)
        if not regions:
            return None
        with torch.autocast(scores.device.type, enabled=False):
            result = softmax_edits.edited(name, scores, weights, regions)
        self._check_again(name)
        self._note(name, [x for x in regions if x not in result.rest])
        return SoftmaxEdit(
            result.weights,
            result.hidden,
            partial(self._finish_softmax, name, result) if result.rest else None,
            all(region.edit.source is None for region in result.rest),
        )

    def _finish_softmax(self, name: str, begun: softmax_edits.Begun, context: Tensor) -> Tensor:
        context = softmax_edits.finished(begun, context)
        self._note(name, begun.rest)
        return context

    def _check_whole(self, name: str, queries: int, key: Tensor) -> None:
        """Refuse edits of some queries where a module reads its queries in parts.

        Raises:
            ArgumentError: it has just read other queries with the same keys, in the same forward
                pass.
        """
        edit = next((x for x in self._edits if x.is_of(name) and not x.queries.is_all), None)
        if edit is None or queries == key.shape[-2] or self._places.is_known(name, queries):
            return
        frame = call_stack.outermost_forward(self.name_of)
        if frame is None:
            return
        running = RunningCall.of(frame)
        some = key[..., [0, key.shape[-2] // 2, -1], :].detach()
        before = self._latest_keys.get(name)
        self._latest_keys[name] = running, some
        if before is not None and before[0].is_same(running) and torch.equal(before[1], some):
            raise ArgumentError(
                f"{edit.text}: '{name}' reads its queries in parts, each with the same keys, so "
                "that the positions of queries are not known; leave queries out"
            )

    def _check_again(self, name: str) -> None:
        """See to it that nothing of this call is computed again without its edits."""
        edits = list(self._edits)

        def check() -> None:
            if not self.is_open or self._edits != edits:
                raise ArgumentError(
                    f"gradient checkpointing computes '{name}' again, and its edits hold no more: "
                    "call backward inside the `with`, before edits change"
                )

        checkpointing.before_recomputation(check)

    def _regions(
        self,
        name: str,
        size: tuple[int, ...],
        device: torch.device,
        update: CacheUpdate | None,
        offset: int | Tensor | None,
    ) -> list[Region]:
        """What the edits change in a call, in the order in which they are applied."""
        place = self._places.of(name, size[2], size[3], update, offset)
        edits = [edit for edit in self._edits if edit.is_of(name)]
        changed = (region_of(edit, name, size, place, device) for edit in edits)
        regions = {region.edit: region for region in changed if region is not None}
        for edit, other in self._doubtful:
            if edit in regions and other in regions and regions[edit].meets(regions[other]):
                raise _contradiction(edit, other)
        return sorted(regions.values(), key=lambda region: region.edit.stage)

    def _note(self, name: str, regions: Iterable[Region]) -> None:
        for region in regions:
            region.edit.done.add(name)

    def on_update(self, name: str, update: CacheUpdate) -> None:
        if self._edits:
            self._places.note(name, update)

    def on_missed(self, name: str, reason: str) -> None:
        if self.wants(name):
            self.unapplied[name] = reason

    def on_partly_edited(self, name: str, reason: str) -> None:
        self.unapplied[name] = f"{reason}, so that what its heads give is not known"
        for edit in self._edits:
            if edit.stage == Stage.OUTPUT and not edit.zeroes:
                edit.done.discard(name)

    def _finish(self, error: BaseException | None) -> None:
        if error is None:
            self._check_effects()
        left = unseen(self._modules, self._called, self.unapplied, None, set(), was_open=True)
        self.unapplied = {name: why for name, why in left.items() if self.wants(name)}

    # Edits that did nothing.

    def _check_effects(self) -> None:
        """Raise ArgumentError if an edit did nothing, as nobody would notice that."""
        for edit in self._edits:
            for name, why in self.unapplied.items():
                if edit.is_of(name) and name not in edit.done:
                    raise ArgumentError(f"{edit.text} was not applied to '{name}', which {why}")
            idle = [entry for entry, names in edit.entries if not names & edit.done]
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
        if any(edit.is_of(name) for name in self._called):
            return "no such position was read"
        known = sorted(self._called)
        if not known:
            return "no attention of the model ran while the intervention was open"
        more = ", ..." if len(known) > MOST_NAMES else ""
        return f"no such module attended; these did: {', '.join(known[:MOST_NAMES])}{more}"


def _contradiction(edit: Edit, other: Edit) -> ArgumentError:
    return ArgumentError(f"{edit.text} contradicts {other.text}: only one of them can hold")


def _entries_of(layer: Layers | None) -> list[int | str]:
    if layer is None:
        return []
    if isinstance(layer, str) or not isinstance(layer, Iterable):
        return [layer]
    entries = list(layer)
    if not entries:
        raise ArgumentError("an edit of no layer does nothing; leave it out")
    return entries

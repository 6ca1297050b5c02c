"""The page as a notebook widget: anywidget displays it and forwards requests to the kernel."""

from concurrent.futures import Future
from functools import partial
from typing import Any

import anywidget
import traitlets

from pellucid.errors import PellucidError
from pellucid.viewer.api import Api
from pellucid.viewer.catalogue import Catalogue
from pellucid.viewer.html_export import as_bytes, source
from pellucid.viewer.requests import Numbers, PendingAnswer, parsed
from pellucid.viewer.scheduler import Scheduler

HEIGHT, MOST_HEIGHT = 560, 1000
"""Pixels of a page in a notebook."""
LAYER, FRAME = 72, 190
"""Pixels of a layer of the overview, at least, and of all that is around the layers."""


class Page(anywidget.AnyWidget):
    """A page in a notebook. Its recordings stay in memory until it is closed."""

    _esm = source("bundle.js")
    # One called `style` would be taken for a widget.
    css = traitlets.Unicode(source("style.css")).tag(sync=True)
    file = traitlets.Unicode(source("file.html")).tag(sync=True)
    height = traitlets.Int(HEIGHT).tag(sync=True)
    address = traitlets.Unicode().tag(sync=True)

    def __init__(
        self, catalogue: Catalogue, address: str = "overview", shown: object = None
    ) -> None:
        """Show a catalogue, opened at a view; `shown` is the object that it was made of."""
        self.shown = shown
        self._api: Api | None = Api(catalogue)
        self._scheduler = Scheduler()  # its threads do not block cells
        self._waiting: dict[str, Future[None]] = {}
        layers = len(catalogue.layers) if address == "overview" else 0
        height = min(max(HEIGHT, FRAME + LAYER * layers), MOST_HEIGHT)  # all heads are in view
        super().__init__(address=address, height=height)
        self.on_msg(self._receive)

    def close(self) -> None:
        """Release the recordings, and stop all requests."""
        self._api = self.shown = None
        self._scheduler.close()
        super().close()

    def _receive(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """Handle a request, {number, path}; or {drop}, the number of a cancelled one."""
        if self._api is None:
            return
        if "drop" in message:
            waiting = self._waiting.get(message["drop"])
            if waiting is not None:
                self._scheduler.drop(waiting)
            return
        number = message["number"]
        try:
            pending = self._api.ask(*parsed(message["path"]))
        except PellucidError as error:
            self.send({"number": number, "error": str(error)})
            return
        send_answer = partial(self._answer, number, pending)
        self._waiting[number] = future = self._scheduler.submit(pending.pace, send_answer)
        future.add_done_callback(lambda _: self._waiting.pop(number, None))

    def _answer(self, number: str, pending: PendingAnswer) -> None:
        """Send an answer, from any thread."""
        try:
            answer = pending.find()
        except PellucidError as error:
            self.send({"number": number, "error": str(error)})
        else:
            if isinstance(answer, Numbers):
                array = {"shape": list(answer.values.shape), "exact": answer.is_exact}
                self.send({"number": number} | array, [as_bytes(answer.values)])
            else:
                self.send({"number": number, "json": answer})

"""Idle connections are closed, so that new ones can always be opened."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

WAIT = 10.0
"""Seconds without a complete request, or without reading an answer, until a connection closes."""
MOST = 64
"""Connections at once; one more replaces the oldest idle one."""


class Connection(H11Protocol):
    """uvicorn's HTTP protocol, with time-outs for requests that never begin or end."""

    _timer: asyncio.TimerHandle | None = None
    since = 0.0
    """When it was opened, on the clock of the loop."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.since = self.loop.time()
        if len(self.connections) > MOST:
            ours = [
                connection for connection in self.connections if isinstance(connection, Connection)
            ]
            idle = [connection for connection in ours if not connection.is_answering]
            min(idle, key=lambda connection: connection.since).transport.abort()
        self._look()

    @property
    def is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def _look(self) -> None:
        """Start the time-out for a complete request; computing an answer has none."""
        if self.is_answering:
            self._stop()
        elif self._timer is None and not self.transport.is_closing():
            self._wait()

    def _wait(self) -> None:
        self._stop()
        self._timer = self.loop.call_later(WAIT, self.transport.abort)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

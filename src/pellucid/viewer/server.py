"""The server of the page: the API over HTTP, for this machine only.

Numbers go out as float32, little-endian, row by row, with their shape in the header X-Shape. The
event loop computes nothing: quick and slow requests each have a thread, slow ones let quick ones go
first, and cancelled requests are dropped.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pellucid.common.wording import plain
from pellucid.errors import ArgumentError, OutOfRangeError, PellucidError
from pellucid.viewer.api import Api
from pellucid.viewer.catalogue import Catalogue, Volume
from pellucid.viewer.connections import WAIT
from pellucid.viewer.reading import KEPT, MOST_BYTES, Reader, Reading, SupersededError
from pellucid.viewer.requests import BrokenError, Numbers, PendingAnswer
from pellucid.viewer.scheduler import Scheduler
from pellucid.viewer.schema import schema

Result = TypeVar("Result")

MOST_WAITING = 256
"""Requests running or waiting; more are refused."""
PATIENCE = 0.1
"""Seconds between checks whether the client is still connected."""
KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Server:
    """A catalogue on the web: `app` is what a server runs."""

    def __init__(
        self, catalogue: Catalogue, token: str = "", models: Mapping[str, str] | None = None
    ) -> None:
        """Get ready.

        Args:
            catalogue: what is shown at first.
            token: the first part of each address, where others than this machine can reach it.
            models: those that may read a text of the page, as of `models_at_hand`; none if None.
        """
        self._reader = Reader(models or {})
        self._api = Api(catalogue, list(self._reader.models))
        self._scheduler = Scheduler()
        self._alone = ThreadPoolExecutor(1, "pellucid-reading")
        self._waiting = 0
        routes: list[BaseRoute] = [
            Route("/", self.page),
            Route("/page/{name}", self.page),
            Route("/schema", self.schema),
            Route("/read", self.read, methods=["POST"]),
            Route("/{path:path}", self.answer),
        ]
        self.app: ASGIApp = Guard(
            Starlette(
                routes=[Mount(f"/{token}", routes=routes)] if token else routes,
                lifespan=self._life,
                exception_handlers={
                    PellucidError: _refused,
                    GoneError: _gone,
                    TimeoutError: _gone,
                    404: _missing,
                },
            ),
            {"localhost", socket.gethostname().lower()} if token else {"localhost"},
            f"/{token}/read" if token else "/read",
        )

    @asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        yield
        self._scheduler.close()
        self._alone.shutdown(wait=False, cancel_futures=True)

    async def page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        _, _, kind = name.rpartition(".")
        there = {file.name: file for file in (files("pellucid.viewer") / "page").iterdir()}
        if kind not in KINDS or name not in there:
            raise OutOfRangeError("there is no such page")
        return Response(there[name].read_bytes(), media_type=KINDS[kind])

    async def schema(self, _: Request) -> Response:
        return JSONResponse(schema())

    async def answer(self, request: Request) -> Response:
        if request.headers.get("x-edition", f"{self._api.edition}") != f"{self._api.edition}":
            raise OutdatedError("another page has read a new text here; reload this one")
        pending = self._api.ask(request.path_params["path"], request.query_params)
        self._refuse_more()
        answer = self._scheduler.submit(pending.pace, partial(_response, pending))
        return await self._awaited(request, answer, partial(self._scheduler.drop, answer))

    async def read(self, request: Request) -> Response:
        """A text that the page sends is read and shown, before those that were there already."""
        # Other sites cannot send this type without asking first, which the guard refuses.
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise ArgumentError("a request is of the type application/json")
        self._refuse_more()
        body = await asyncio.wait_for(_body(request), WAIT)
        reading = self._reader.ask(body)
        volume = await self._awaited(request, self._alone.submit(_read, reading), reading.cancel)
        reading.check()  # a newer one may have come while this one went from thread to thread
        catalogue = Catalogue(volume, *self._api.catalogue.volumes[: KEPT - 1])
        self._api = Api(catalogue, self._api.models, self._api.edition + 1)
        return JSONResponse({"edition": self._api.edition})

    def _refuse_more(self) -> None:
        if self._waiting >= MOST_WAITING:
            raise BusyError("too many requests at once")

    async def _awaited(
        self, request: Request, answer: Future[Result], drop: Callable[[], None]
    ) -> Result:
        """The result of a thread, unless the client is gone before."""
        response = asyncio.wrap_future(answer)
        self._waiting += 1
        try:
            while not (await asyncio.wait({response}, timeout=PATIENCE))[0]:
                if await request.is_disconnected():
                    response.cancel()
                    drop()
                    raise GoneError
            return response.result()
        finally:
            self._waiting -= 1


class BusyError(PellucidError, RuntimeError):
    """Too many requests at once."""


class OutdatedError(PellucidError, RuntimeError):
    """The page shows what was there before."""


class GoneError(Exception):
    """The client has disconnected."""


class Guard:
    """Admits requests of this server's own page only.

    Names are checked, as any site can make its own lead here (DNS rebinding); an address in numbers
    leads nowhere else, and the port may be that of a tunnel.
    """

    def __init__(self, app: ASGIApp, names: set[str], posts: str) -> None:
        self._app, self._names, self._posts = app, names, posts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        reason = None
        if not self._is_ours(host):
            reason = "this server does not answer to that host name"
        elif origin not in (None, f"http://{host}"):
            reason = "only this server's own page may send requests"
        elif request.method not in ("GET", "HEAD") and (
            (request.method, request.url.path) != ("POST", self._posts)
        ):
            reason = "only GET and HEAD are allowed"

        async def sealed(message: Any) -> None:
            if message["type"] == "http.response.start":
                pairs = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *pairs]
            await send(message)

        answer: Callable[..., Awaitable[None]] = self._app
        if reason is not None:
            answer = JSONResponse({"error": reason}, 403)
        await answer(scope, receive, sealed)

    def _is_ours(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname or "", parts.port  # an error where that is no number
            return name in self._names or bool(ip_address(name))
        except ValueError:
            return False


async def _refused(_: Request, error: Exception) -> Response:
    statuses: dict[type, int] = {
        OutOfRangeError: 404,
        OutdatedError: 409,
        SupersededError: 409,
        BrokenError: 500,
        BusyError: 503,
    }
    status = statuses.get(type(error), 400)
    return JSONResponse(plain({"error": str(error)}), status)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)


async def _missing(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "there is no such page"}, 404)


async def _body(request: Request) -> bytes:
    """All that is sent, unless it is too much."""
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                raise ArgumentError(f"a request has at most {MOST_BYTES:,} bytes")
    except ClientDisconnect:
        raise GoneError from None
    return bytes(body)


def _read(reading: Reading) -> Volume:
    try:
        return reading.find()
    except PellucidError:
        raise
    except Exception as error:  # of torch, with what a model could not do
        raise BrokenError(" ".join(str(error).split()) or type(error).__name__) from error


def _response(pending: PendingAnswer) -> Response:
    """All of it, to the last byte, in the thread that finds it."""
    answer = pending.find()
    if not isinstance(answer, Numbers):
        return JSONResponse(answer)
    body = np.ascontiguousarray(answer.values.detach().float().cpu().numpy().astype("<f4"))
    shape = ",".join(map(str, body.shape))
    headers = {"X-Shape": shape, "X-Exact": str(int(answer.is_exact))}
    return Response(body.tobytes(), media_type="application/octet-stream", headers=headers)

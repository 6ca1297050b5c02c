"""The server behind the page: an atlas, asked over HTTP from this machine alone.

Numbers go out as float32, little-endian, row by row, with their shape in the header X-Shape. The
event loop computes nothing: what is soon done and what takes long each have a thread, and what
nobody waits for any more is dropped.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, get_args

import numpy as np
import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pellucid import __version__
from pellucid.errors import ArgumentError, OutOfRangeError, PellucidError
from pellucid.viewer.atlas import Atlas, Place, Side
from pellucid.viewer.maps import SIDE, Map

MOST_WAITING = 256
"""Requests at work or waiting; more are refused."""
MOST_WORDS = 4096
"""Tokens of one answer."""
PATIENCE = 0.1
"""Seconds between looks whether somebody still waits."""
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
    """An atlas on the web: `app` is what a server runs."""

    def __init__(self, atlas: Atlas, title: str, hosts: set[str], token: str = "") -> None:
        """Get ready.

        Args:
            atlas: what is shown.
            title: of the page.
            hosts: what browsers may call this server, with the port ("localhost:7227").
            token: the first part of each address, where others than this machine can reach it.
        """
        self.atlas, self.title, self.token = atlas, title, token
        self._soon, self._slow = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._rows: list[dict[str, Any]] = []
        self._measured = 0
        self._waiting = 0
        routes = [
            Route("/", self.page),
            Route("/page/{name}", self.page),
            Route("/about", self.about),
            Route("/heads", self.heads),
            Route("/words/{sheet:int}/{item:int}/{side}", self.words),
            Route("/thumbnails/{sheet:int}/{item:int}", self.thumbnails),
            Route(
                "/tile/{sheet:int}/{item:int}/{head:int}/{level:int}/{row:int}/{column:int}",
                self.tile,
            ),
            Route("/row/{sheet:int}/{item:int}/{head:int}/{token:int}", self.profile),
            Route("/column/{sheet:int}/{item:int}/{head:int}/{token:int}", self.profile),
        ]
        under: list[BaseRoute] = [Mount(f"/{token}", routes=routes)] if token else [*routes]
        self.app: ASGIApp = Guard(
            Starlette(
                routes=under,
                lifespan=self._life,
                exception_handlers={PellucidError: _refused, GoneError: _gone},
            ),
            hosts,
        )

    @asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        measuring = asyncio.create_task(self._measure())
        try:
            yield
        finally:
            measuring.cancel()
            for pool in (self._soon, self._slow):
                pool.shutdown(wait=False, cancel_futures=True)

    async def _measure(self) -> None:
        """What each head does, sheet by sheet, when nobody waits for something else."""
        rows, loop = self.atlas.rows(), asyncio.get_running_loop()
        while (some := await loop.run_in_executor(self._slow, next, rows, None)) is not None:
            found = [row.to_dict() | {"label": row.label, "sheet": self._measured} for row in some]
            self._rows += found
            self._measured += 1

    async def _wait(
        self, request: Request, pool: ThreadPoolExecutor, call: Callable[[], Any]
    ) -> Any:
        """What a call gives, made in a pool; dropped where nobody waits for it any more."""
        if self._waiting >= MOST_WAITING:
            raise BusyError("too many requests at once")
        self._waiting += 1
        made = asyncio.wrap_future(pool.submit(call))
        try:
            while not (await asyncio.wait({made}, timeout=PATIENCE))[0]:
                if await request.is_disconnected():
                    made.cancel()
                    raise GoneError
            return made.result()
        except (PellucidError, GoneError):
            raise
        except Exception as error:  # of torch, with what a file claimed to be
            raise BrokenError(" ".join(str(error).split()) or type(error).__name__) from error
        finally:
            self._waiting -= 1

    async def page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        _, _, kind = name.rpartition(".")
        file = files("pellucid.viewer") / "page" / name
        if kind not in KINDS or "/" in name or not file.is_file():
            raise OutOfRangeError("there is no such page")
        return Response(file.read_bytes(), media_type=KINDS[kind])

    async def about(self, _: Request) -> Response:
        sheets = [sheet._asdict() for sheet in self.atlas.sheets]
        told = {"title": self.title, "version": __version__, "side": SIDE, "sheets": sheets}
        return JSONResponse(told | {"model": self.atlas.seen.model})

    async def heads(self, _: Request) -> Response:
        of = len(self.atlas.sheets)
        return JSONResponse({"done": self._measured, "of": of, "rows": self._rows})

    async def words(self, request: Request) -> Response:
        asked = request.path_params
        side: Side = asked["side"]
        if side not in get_args(Side):
            raise ArgumentError("a side is 'queries' or 'keys'")
        first, count = _number(request, "first", 0), _number(request, "count", MOST_WORDS)
        if first < 0 or not 0 < count <= MOST_WORDS:
            raise ArgumentError(f"first is 0 or more, and count from 1 to {MOST_WORDS}")
        found = await self._wait(
            request, self._soon, lambda: self.atlas.words(asked["sheet"], asked["item"], side)
        )
        return JSONResponse({"words": None if found is None else found[first : first + count]})

    async def thumbnails(self, request: Request) -> Response:
        asked = request.path_params
        return _numbers(
            await self._wait(
                request, self._soon, lambda: self.atlas.thumbnails(asked["sheet"], asked["item"])
            )
        )

    async def tile(self, request: Request) -> Response:
        asked = request.path_params
        reduce: Any = request.query_params.get("reduce", "mean")
        exact = bool(_number(request, "exact", 1))
        found = await self._wait(
            request,
            self._slow if exact else self._soon,
            lambda: self._map(request).tile(
                asked["level"], asked["row"], asked["column"], reduce, exact=exact
            ),
        )
        return _numbers(found.cells, found.is_exact)

    async def profile(self, request: Request) -> Response:
        token, is_row = request.path_params["token"], "/row/" in request.url.path

        def find() -> torch.Tensor:
            of = self._map(request)
            return of.row(token) if is_row else of.column(token)

        pool = self._soon if is_row else self._slow
        return _numbers(await self._wait(request, pool, find))

    def _map(self, request: Request) -> Map:
        asked = request.path_params
        return self.atlas.map(Place(asked["sheet"], asked["item"], asked["head"]))


class BusyError(PellucidError, RuntimeError):
    """More is asked for than can be done."""


class BrokenError(PellucidError, RuntimeError):
    """What was asked for could not be worked out."""


class GoneError(Exception):
    """Nobody waits for the answer any more."""


class Guard:
    """Lets in what a page of this server asks, and nobody else (DNS rebinding, other sites)."""

    def __init__(self, app: ASGIApp, hosts: set[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        origin = request.headers.get("origin")
        reason = None
        if request.headers.get("host") not in self._hosts:
            reason = "this server goes by another name"
        elif origin is not None and origin.removeprefix("http://") not in self._hosts:
            reason = "only this server's own page may ask"
        elif request.method not in ("GET", "HEAD"):
            reason = "there is nothing here to change"

        async def sealed(message: Any) -> None:
            if message["type"] == "http.response.start":
                pairs = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *pairs]
            await send(message)

        answer: Callable[..., Awaitable[None]] = self._app
        if reason is not None:
            answer = JSONResponse({"error": reason}, 403)
        await answer(scope, receive, sealed)


async def _refused(_: Request, error: Exception) -> Response:
    statuses: dict[type, int] = {OutOfRangeError: 404, BrokenError: 500, BusyError: 503}
    status = statuses.get(type(error), 400)
    return JSONResponse({"error": str(error)}, status)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)


def _number(request: Request, name: str, otherwise: int) -> int:
    said = request.query_params.get(name, str(otherwise))
    if not said.isascii() or not said.isdecimal() or len(said) > 9:
        raise ArgumentError(f"{name} must be a number")
    return int(said)


def _numbers(tensor: torch.Tensor, is_exact: bool = True) -> Response:
    body = np.ascontiguousarray(tensor.detach().float().cpu().numpy().astype("<f4"))
    told = {"X-Shape": ",".join(map(str, tensor.shape)), "X-Exact": str(int(is_exact))}
    return Response(body.tobytes(), media_type="application/octet-stream", headers=told)

"""Run the server of the page until Ctrl-C."""

import ipaddress
import os
import secrets
import socket
import sys
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from pellucid.common.files import reason_of
from pellucid.errors import ArgumentError, FileError, MissingExtraError
from pellucid.lens.recording import Recording
from pellucid.viewer.catalogue import Catalogue, Volume
from pellucid.viewer.reading import models_at_hand

if TYPE_CHECKING:
    import uvicorn

FIRST, LAST = 7227, 7327
"""Ports to try; always the first if it is free, so that addresses can be bookmarked."""
ANYWHERE = ("0.0.0.0", "::")
"""The hosts that stand for all addresses of a machine."""


class Listening(NamedTuple):
    """A listening socket, opened before a model reads for minutes."""

    host: str
    socket: socket.socket


@contextmanager
def listening(host: str, port: int) -> Iterator[Listening]:
    """A listening socket, closed at the end.

    Args:
        host: the address.
        port: 0 takes a free one.

    Raises:
        ArgumentError: the host or the port is invalid.
        FileError: the address cannot be used.
        MissingExtraError: starlette or uvicorn is not installed.
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise MissingExtraError.of("pellucid view needs starlette and uvicorn", "view")
    if not 0 <= port < 2**16:
        raise ArgumentError(f"--port must be from 0 to 65535, not {port}")
    try:
        ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ArgumentError(f"--host must be an address like 127.0.0.1, not '{host}'") from None
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    problem: OSError | None = None
    for candidate in (port,) if port else range(FIRST, LAST):
        listener = socket.socket(kind, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen()
        except OSError as error:
            listener.close()
            problem = error
            continue
        with listener:
            yield Listening(host, listener)
        return
    assert problem is not None
    where = f"{host}, port {port}" if port else host
    raise FileError(f"cannot listen on {where}: {reason_of(problem)}") from problem


def serve(
    volumes: Sequence[Volume],
    at: Listening,
    browser: bool,
    tell: Callable[[str], None],
    models: Mapping[str, str],
    *,
    place: str = "",
) -> NoReturn:
    """Serve recordings, report the address, and end the process at Ctrl-C.

    Args:
        volumes: the recordings.
        at: where to listen.
        browser: whether to open one.
        tell: called with the address, before a browser is opened.
        models: those that may read a text of the page, as of `models_at_hand`.
        place: where the page opens, as after "#" in its address.

    Raises:
        ArgumentError: a recording contains no attention.
    """
    server, address = _server(volumes, at, models)
    address += f"#{place}" if place else ""
    tell(address)
    if browser:
        _open(address)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[at.socket])
    sys.stdout.flush()
    sys.stderr.flush()
    # Do not wait for running computations; they write nothing.
    os._exit(0)


class Shown:
    """A page that is served while the program goes on."""

    def __init__(self, volumes: Sequence[Volume], host: str, port: int) -> None:
        """Listen and answer, from a thread; errors as of `listening` and `serve`."""
        self._place = ExitStack()
        with self._place:
            at = self._place.enter_context(listening(host, port))
            self._server, self.address = _server(volumes, at, models_at_hand())
            self._thread = Thread(
                target=self._server.run, kwargs={"sockets": [at.socket]}, daemon=True
            )
            self._thread.start()
            self._place = self._place.pop_all()

    def close(self) -> None:
        """Stop serving, and free the port."""
        self._server.should_exit = True
        self._thread.join()
        self._place.close()

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"shown at {self.address}; close() stops it"


def show(seen: Recording, *, host: str, port: int, browser: bool) -> Shown:
    """`Recording.view`."""
    shown = Shown([Volume(seen, seen.model)], host, port)
    if browser:
        _open(shown.address)
    return shown


def _server(
    volumes: Sequence[Volume], at: Listening, models: Mapping[str, str]
) -> "tuple[uvicorn.Server, str]":
    """The server, and the address for a browser."""
    import uvicorn

    from pellucid.viewer.connections import Connection
    from pellucid.viewer.server import Server

    catalogue = Catalogue(*volumes)
    host, port = at.host, at.socket.getsockname()[1]
    is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    token = "" if is_here else secrets.token_urlsafe(16)
    shown = f"[{host}]" if ":" in host else host
    if host in ANYWHERE:  # which is no address that a browser could go to
        shown = socket.gethostname()
    address = f"http://{shown}:{port}/" + (f"{token}/" if token else "")
    config = uvicorn.Config(
        Server(catalogue, token, models).app,
        http=Connection,
        ws="none",
        log_level="error",
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    return uvicorn.Server(config), address


def _open(address: str) -> None:
    """Open a browser in a thread: some run in the terminal until they are closed."""
    Thread(target=webbrowser.open, args=(address,), daemon=True).start()

"""Running the server of the page until somebody presses Ctrl-C."""

import ipaddress
import os
import secrets
import socket
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import suppress

import typer

from pellucid.errors import ArgumentError, FileError, MissingExtraError
from pellucid.viewer.atlas import Atlas, Volume

FIRST, LAST = 7227, 7327
"""Ports that are tried; always the same one, where it is free, so that addresses can be kept."""


def serve(volumes: Sequence[Volume], host: str, port: int, browser: bool) -> None:
    """Show recordings, and say where.

    Args:
        volumes: the recordings.
        host: the address to listen on.
        port: 0 takes a free one.
        browser: whether to open one.

    Raises:
        ArgumentError: the host or the port is none, or a recording holds no attention.
        FileError: nobody can listen there.
        MissingExtraError: starlette or uvicorn is not installed.
    """
    try:
        import uvicorn

        from pellucid.viewer.server import Server
    except ImportError as error:
        raise MissingExtraError("pellucid view needs: pip install 'pellucid[view]'") from error

    if not 0 <= port < 2**16:
        raise ArgumentError(f"--port must be from 0 to 65535, not {port}")
    is_here = _is_loopback(host)
    atlas = Atlas(*volumes)
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    token = "" if is_here else secrets.token_urlsafe(16)
    names = {host, "127.0.0.1", "localhost", "[::1]"} if is_here else {host, socket.gethostname()}
    shown = f"[{host}]" if ":" in host else host
    server = Server(atlas, {f"{name}:{port}" for name in names | {shown}}, token)
    address = f"http://{shown}:{port}/" + (f"{token}/" if token else "")
    typer.echo(f"{address}\nCtrl-C stops.", err=False)
    sys.stdout.flush()
    if browser:
        webbrowser.open(address)
    config = uvicorn.Config(
        server.app, log_level="error", timeout_graceful_shutdown=1, server_header=False
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
    sys.stdout.flush()
    sys.stderr.flush()
    # A pass over long texts that nobody waits for any more would hold this up; it writes nothing.
    os._exit(0)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise ArgumentError(f"--host must be an address like 127.0.0.1, not '{host}'") from None


def _listen(host: str, port: int) -> socket.socket:
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    problem: OSError | None = None
    for one in (port,) if port else range(FIRST, LAST):
        listening = socket.socket(kind, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, one))
            listening.listen()
        except OSError as error:
            listening.close()
            problem = error
            continue
        return listening
    assert problem is not None
    raise FileError(f"cannot listen on {host}: {problem.strerror or problem}") from problem

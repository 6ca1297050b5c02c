"""Commands in processes of their own that need not import torch anew.

Tests of pipes, terminals, signals and broken outputs need a process, and one that imports torch
takes seconds. `command()` gives what to start in place of `python -m pellucid`: a small program
(forked_client.py) that hands its arguments, directory, environment and files to a server. The
server has imported what commands import, and forks; the small program passes signals on, and ends
as the fork ended.

Where what a process imports is what is tested, or it is killed, start `python -m pellucid`.
"""

import atexit
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LOADED = (
    "numba",
    "torch",
    "pellucid.commands.printing",
    "pellucid.layers.decoding_kernel",
    "pellucid.lens",
    "pellucid.lessons",
    "pellucid.models",
    "pellucid.readers",
    "pellucid.tasks",
    "pellucid.viewer.serve",
)
"""What commands import when they run."""


def command() -> list[str]:
    """`pellucid`, to be followed by its arguments."""
    if sys.platform != "linux":
        return [sys.executable, "-m", "pellucid"]
    return [sys.executable, "-IS", str(HERE / "forked_client.py"), _started()]


@cache
def _started() -> str:
    """Start a server; gives its address. It ends when this process does."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("")  # the system chooses a name, of no file
    listening.listen()
    environment = os.environ | {"NUMBA_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.forked", str(listening.fileno())],
        cwd=HERE.parent,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[listening.fileno()],
        start_new_session=True,  # Ctrl-C is not for it
    )
    atexit.register(_stop, server, listening)
    return listening.getsockname()[1:].decode()


def _stop(server: subprocess.Popen[bytes], listening: socket.socket) -> None:
    listening.close()
    with server:
        server.stdin.close()


def serve(listening: socket.socket) -> None:
    """Fork for each who asks; returns in a fork, and where there is nobody to ask any more."""
    for name in LOADED:
        import_module(name)
    gc.collect()
    gc.freeze()  # or each fork would look through it all, and so copy it
    while True:
        ready, _, _ = select.select([listening, 0], [], [])
        if 0 in ready:
            return
        asking, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            with asking:
                _attend(asking)
            return
        asking.close()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def _attend(asking: socket.socket) -> None:
    """Fork once more; returns in the command, and stays with it in the process between."""
    head, files, _, _ = socket.recv_fds(asking, 4, 3)
    with asking.makefile("rb") as rest:
        asked = json.loads(rest.read(*struct.unpack("I", head)))
    child = os.fork()
    if child == 0:
        asking.close()
        _become(asked, files)
        return
    for file in files:
        os.close(file)
    asking.sendall(b"%d\n" % child)
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([ended, asking], [], [])
    if asking in ready:  # who asked was killed
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with suppress(OSError):
        asking.sendall(b"%d\n" % status)
    os._exit(0)


def _become(asked: dict[str, Any], files: list[int]) -> None:
    """Take over the directory, environment and files of who asked, then run the command."""
    # The server has computed nothing, so no thread of its own is missing here.
    forking = import_module("pellucid.attention.forking")
    forking._is_child = forking._had_numba = False
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    there = dict(zip(asked["files"], files, strict=True))
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    plain = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        usual = getattr(sys, name)
        stream = None
        if number in there:
            os.dup2(there[number], number)
            raw = io.FileIO(number, "rb" if number == 0 else "wb", closefd=False)
            if number == 0:
                binary = io.BufferedReader(raw)
            else:
                binary = raw if plain else io.BufferedWriter(raw)
            stream = io.TextIOWrapper(
                binary,
                encoding=encoding or usual.encoding,
                errors=errors or usual.errors,
                line_buffering=number == 2 or raw.isatty(),
                write_through=plain and number > 0,
            )
        else:
            os.close(number)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    for file in files:
        os.close(file)
    sys.argv = ["pellucid", *asked["arguments"]]
    try:
        runpy.run_module("pellucid", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code or 0
    else:
        status = 0
    # As Python ends, but without taking all that was imported apart, which takes a second.
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))

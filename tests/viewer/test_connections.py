"""Connections over which nobody asks: they end, and there is room for who does."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn

from pellucid.viewer import connections


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here"})


def served(asks):
    async def run():
        config = uvicorn.Config(
            app, http=connections.Connection, port=0, log_level="error", lifespan="off"
        )
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            await asks(port)
        finally:
            server.should_exit = True
            await running

    # The browser of other tests has a loop of its own on this thread.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(asyncio.wait_for(run(), 60))).result()


async def answer(port, path="/"):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    told = await reader.read()
    writer.close()
    return told


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost:",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /",
    ],
)
def test_a_connection_without_a_whole_request_ends(monkeypatch, sent):
    monkeypatch.setattr(connections, "WAIT", 0.2)

    async def asks(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        with contextlib.suppress(ConnectionResetError):
            await reader.read()  # until it ends
        writer.close()
        assert (await answer(port, "/slow")).endswith(
            b"here\r\n0\r\n\r\n"
        )  # an answer takes what it takes

    served(asks)


def test_one_more_takes_the_place_of_the_oldest(monkeypatch):
    monkeypatch.setattr(connections, "MOST", 5)

    async def asks(port):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(11)]
        assert (await answer(port)).endswith(b"here\r\n0\r\n\r\n")
        for reader, writer in idle[:6]:
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.close()
        for _, writer in idle[6:]:
            writer.close()

    served(asks)

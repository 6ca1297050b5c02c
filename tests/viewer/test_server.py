"""The server answers with the library's numbers, lets in its own page alone, and lives on."""

import asyncio
import math
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from pellucid.attention import masks
from pellucid.errors import ArgumentError
from pellucid.lens.pieces import Pieces
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.visibility import Visibility
from pellucid.viewer import alignment
from pellucid.viewer import server as module
from pellucid.viewer.catalogue import Catalogue, Volume
from pellucid.viewer.server import Server
from pellucid.viewer.tile_pyramid import Map
from tests.viewer import recordings
from tests.viewer.recordings import recording

HERE = "127.0.0.1:7227"
TOKENS = 53


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(Volume(recording(tokens=TOKENS), "a text"))


@pytest.fixture
def client(catalogue: Catalogue) -> Iterator[TestClient]:
    with TestClient(Server(catalogue).app, f"http://{HERE}") as found:
        yield found


def numbers(client: TestClient, path: str) -> torch.Tensor:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    shape = [int(size) for size in answer.headers["X-Shape"].split(",")]
    return torch.from_numpy(np.frombuffer(answer.content, "<f4").reshape(shape).copy())


def test_numbers_are_those_of_the_library(client: TestClient, catalogue: Catalogue) -> None:
    weights = catalogue.volumes[0].seen.latest()[1].weights[1, 2]
    assert torch.equal(numbers(client, "/tile/1/1/2/0/0/0"), weights)
    torch.testing.assert_close(numbers(client, "/row/1/1/2/37"), weights[37])
    torch.testing.assert_close(numbers(client, "/column/1/1/2/11"), weights[:, 11])
    thumbnails = numbers(client, "/thumbnails/1/1")
    torch.testing.assert_close(thumbnails[2], weights)


def test_what_there_is(client: TestClient) -> None:
    about = client.get("/about").json()
    assert about["title"] == "a text"
    assert [layer["number"] for layer in about["layers"]] == [0, 1]
    assert about["layers"][0]["queries"] == TOKENS
    assert client.get("/keys/0/0").json() == {"words": None}
    for _ in range(200):
        found = client.get("/heads").json()
        if found["done"] == found["of"]:
            break
        time.sleep(0.05)
    assert [row["layer_index"] for row in found["rows"]] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/tile/2/0/0/0/0/0", 404),
        ("/tile/0/2/0/0/0/0", 404),
        ("/tile/0/0/3/0/0/0", 404),
        ("/tile/0/0/0/1/0/0", 404),
        ("/tile/0/0/0/0/1/0", 404),
        ("/tile/0/0/0/0/0/0?reduce=sum", 400),
        ("/tile/0/0/0/0/0/0?exact=yes", 400),
        ("/tile/0/0/0/0/0/-1", 404),
        ("/tile/0/0/0/0/0/99999999999999999999999", 404),
        ("/row/0/0/0/53", 404),
        ("/values/0/0", 404),
        ("/keys/0/0?count=4097", 400),
        ("/keys/0/0?first=²", 400),
        ("/page/server.py", 404),
        ("/page/..%2Fserver.py", 404),
        ("/page/%00", 404),
        ("/nowhere", 404),
    ],
)
def test_what_there_is_not(client: TestClient, path: str, status: int) -> None:
    assert client.get(path).status_code == status


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"Host": "evil.example:7227"}),
        ("GET", {"Host": "evil.example"}),
        ("GET", {"Host": "localhost.evil.example:7227"}),
        ("GET", {"Host": "[::1"}),
        ("GET", {"Host": ""}),
        ("GET", {"Host": "192.0.2.7:7227", "Origin": f"http://{HERE}"}),
        ("GET", {"Origin": "http://127.0.0.1:8888"}),
        ("GET", {"Origin": "http://evil.example"}),
        ("GET", {"Origin": "null"}),
        ("GET", {"Origin": "https://127.0.0.1:7227"}),
        ("POST", {}),
    ],
)
def test_only_its_own_page_is_let_in(
    client: TestClient, method: str, headers: dict[str, str]
) -> None:
    answer = client.request(method, "/about", headers=headers)
    assert answer.status_code == 403
    assert "layers" not in answer.text
    assert client.get("/about", headers={"Origin": f"http://{HERE}"}).status_code == 200


@pytest.mark.parametrize("host", ["localhost:8000", "192.0.2.7:7227", "[fd00::7]", "LOCALHOST"])
def test_it_is_found_through_a_tunnel_and_by_any_address(client: TestClient, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert client.get("/about", headers=headers).status_code == 200


def test_other_machines_call_it_by_its_name(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Desk")
    for token, status in (("secret", 200), ("", 403)):
        with TestClient(Server(catalogue, token).app, f"http://{HERE}") as client:
            answer = client.get(f"/{token}/about", headers={"Host": "desk:7227"})
            assert answer.status_code == status


def test_pages_may_run_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/page/main.js", "/about", "/nowhere"):
        said = client.get(path).headers
        assert "default-src 'none'" in said["Content-Security-Policy"]
        assert said["X-Content-Type-Options"] == "nosniff"
    page = client.get("/").text
    assert "http://" not in page
    assert "https://" not in page


def test_elsewhere_a_token_is_asked_for(catalogue: Catalogue) -> None:
    with TestClient(Server(catalogue, "secret").app, f"http://{HERE}") as client:
        assert client.get("/about").status_code == 404
        assert client.get("/secret/about").status_code == 200
        assert client.get("/secret/").status_code == 200


def test_more_than_can_be_done_is_refused(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    held, go = threading.Event(), threading.Event()

    def slow(*_: object) -> torch.Tensor:
        held.set()
        assert go.wait(20)
        return torch.zeros(1)

    monkeypatch.setattr(catalogue, "thumbnails", slow)
    with TestClient(Server(catalogue).app, f"http://{HERE}") as client:
        waiting = threading.Thread(target=client.get, args=("/thumbnails/0/0",))
        waiting.start()
        assert held.wait(20)
        assert client.get("/row/0/0/0/0").status_code == 503
        go.set()
        waiting.join()
        assert client.get("/row/0/0/0/0").status_code == 200


def test_a_failure_is_not_the_end(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("no such memory")

    monkeypatch.setattr(catalogue, "thumbnails", broken)
    app = Server(catalogue).app
    with TestClient(app, f"http://{HERE}", raise_server_exceptions=False) as client:
        answer = client.get("/thumbnails/0/0")
        assert answer.status_code == 500
        assert answer.json()["error"] == "no such memory"
        assert client.get("/row/0/0/0/0").status_code == 200


def test_a_recording_of_nothing_is_refused() -> None:
    with pytest.raises(ArgumentError, match="contains no attention"):
        Catalogue(Volume(Recording("Nothing"), ""))


def test_words_are_read_in_parts() -> None:
    ids = torch.arange(TOKENS)[None]
    record = Record(
        name="layer.0.attention",
        queries=Pieces(torch.randn(1, 3, TOKENS, 5)),
        keys=Pieces(torch.randn(1, 3, TOKENS, 5)),
        visibility=Visibility(masks.causal(), None, (TOKENS, TOKENS), torch.device("cpu")),
        query_tokens=Pieces(ids, -1),
        key_tokens=Pieces(ids, -1),
        latest_queries=TOKENS,
    )
    with TestClient(
        Server(Catalogue(Volume(Recording("Model", [record]), ""))).app, f"http://{HERE}"
    ) as client:
        assert client.get("/keys/0/0?first=7&count=2").json() == {"words": [" 7", " 8"]}
        assert client.get("/keys/0/0?first=99").json() == {"words": []}


def test_heads_that_cannot_be_measured_are_told_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> Iterator[list[object]]:
        raise RuntimeError("no such memory")
        yield []

    monkeypatch.setattr(Catalogue, "rows", broken)
    app = Server(Catalogue(Volume(recording(), ""))).app
    with TestClient(app, f"http://{HERE}", raise_server_exceptions=False) as client:
        for said in ("no such memory", "not all heads could be measured"):
            answer = client.get("/heads")
            assert (answer.status_code, answer.json()["error"]) == (500, said)


def test_what_is_no_number_and_no_text_breaks_no_answer() -> None:
    found = recordings.both()
    for record in found.records:
        query, key = record.query.clone(), record.key.clone()
        query[:, :, 3], key[:, :, 2] = torch.nan, torch.inf
        record.queries, record.keys = Pieces(query), Pieces(key)
    found._tokenizer = recordings.Spelling((" a", " \ud800", " b"))
    shown = Catalogue(Volume(found, "b\udcff.txt"))  # a file's name in bytes that are no text
    with TestClient(Server(shown).app, f"http://{HERE}") as client:
        assert client.get("/about").json()["title"] == "b?.txt"
        assert {" a", " ?", " b"} <= set(client.get("/keys/0/0").json()["words"])
        weights = client.get("/alignment/0/0").json()["weights"]
        assert [None] * recordings.SOURCE in weights
        rows = [client.get("/heads") for _ in shown.layers][-1].json()["rows"]
        assert len(rows) == sum(layer.heads for layer in shown.layers)
        assert None in {row["entropy"] for row in rows}
        assert math.isnan(numbers(client, "/row/0/0/0/3")[0])


def test_more_words_than_fit_into_an_answer_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Catalogue(Volume(recordings.both(), ""))
    (layer, *_) = (number for number, one in enumerate(shown.layers) if one.is_cross)
    with TestClient(Server(shown).app, f"http://{HERE}") as client:
        assert client.get("/alignment/0/0").status_code == 200
        monkeypatch.setattr(alignment, "MOST", recordings.SOURCE * recordings.TARGET - 1)
        for path in ("/alignment/0/0", f"/aligned/{layer}/0"):
            answer = client.get(path)
            assert answer.status_code == 400
            assert "19 target tokens by 23 source tokens are too many" in answer.json()["error"]


def test_the_event_loop_writes_no_answer(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote = []

    class Seen(module.JSONResponse):
        def render(self, content: object) -> bytes:
            wrote.append(threading.current_thread().name)
            return super().render(content)

    monkeypatch.setattr(module, "JSONResponse", Seen)
    for path in ("/about", "/heads"):
        assert client.get(path).status_code == 200
    assert wrote == ["pellucid-soon_0", "pellucid-measuring_0"]


def test_what_nobody_waits_for_is_not_begun(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, go, begun = threading.Event(), threading.Event(), list[int]()

    def column(_: object, token: int) -> torch.Tensor:
        begun.append(token)
        held.set()
        assert go.wait(20)
        return torch.zeros(1)

    monkeypatch.setattr(Map, "column", column)
    app, told = Server(catalogue).app, list[int]()

    async def ask(token: int, is_gone: bool) -> None:
        path = f"/column/0/0/0/{token}"
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode()}
        scope |= {"query_string": b"", "root_path": "", "headers": [(b"host", HERE.encode())]}

        async def receive() -> dict[str, object]:
            return {"type": "http.disconnect"} if is_gone else await asyncio.sleep(99, {})

        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                told.append(message["status"])

        await app(scope, receive, send)

    async def both() -> None:
        first = asyncio.create_task(ask(7, is_gone=False))
        await asyncio.to_thread(held.wait, 20)
        await ask(11, is_gone=True)
        go.set()
        await first
        await ask(13, is_gone=False)

    thread = threading.Thread(target=lambda: asyncio.run(both()))  # a browser may have this one's
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert begun == [7, 13]
    assert told == [499, 200, 200]

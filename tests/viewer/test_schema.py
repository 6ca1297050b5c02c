"""The server against its own schema, and against requests that no schema foresees."""

import copy
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import given, settings
from schemathesis import APIOperation, Case, GenerationMode, openapi
from schemathesis.checks import positive_data_acceptance

from pellucid.viewer import server, volumes
from pellucid.viewer.api import ENDPOINTS
from pellucid.viewer.schema import schema
from pellucid.viewer.server import MOST_WAITING
from tests import writers
from tests.fuzzing import few_or_many
from tests.viewer.browser import Shown
from tests.viewer.recordings import HEADS, TARGET

NEAR = {"layer": 7, "head": HEADS - 1, **dict.fromkeys(("token", "query", "key"), TARGET - 1)}
"""Up to where the numbers in a path name something that there is; of others there is 0 alone."""
WITH_NUMBERS = [name for name, question in ENDPOINTS.items() if question.numbers]
"""Of options alone, what is wrong may be left out, or be right once it is text."""
NEED_A_MODEL = ["ablated"]
# That there is no such head, or that a question makes no sense for it, no schema can tell.
UNTOLD = [positive_data_acceptance]
# To draw a case costs more than to answer it.
how_often = few_or_many(7)


@pytest.fixture(scope="module")
def of(shown: Callable[..., Shown]) -> Shown:
    return shown("both", "decoder")


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A server with a model, and with nothing to show so far."""
    directory = tmp_path_factory.mktemp("models") / "writer"
    writers.writer().save(directory)
    found = Shown(models={"writer": str(directory)})
    yield found
    found.stop()


@pytest.fixture(scope="module")
def able(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A server whose recording has its model at hand."""
    directory = tmp_path_factory.mktemp("models") / "writer"
    writers.writer().save(directory)
    found = Shown(volumes.read("a ball", "", model=str(directory), step=lambda *_: None))
    yield found
    found.stop()


def operations(told: dict[str, Any]) -> dict[str, APIOperation]:
    found = [one.ok() for one in openapi.from_dict(told).get_all_operations()]
    return {one.path.split("/")[1]: one for one in found}


@cache
def all_operations() -> dict[str, APIOperation]:
    return operations(schema())


@cache
def near_operations() -> dict[str, APIOperation]:
    """With numbers in the paths that name something which there is."""
    near = copy.deepcopy(schema())
    for path in near["paths"].values():
        for one in path.get("get", {"parameters": []})["parameters"]:
            if one["in"] == "path" or one["name"] == "after":
                one["schema"] = one["schema"] | {"maximum": NEAR.get(one["name"], 0)}
            if one["name"] == "edits":  # of which no schema tells how they are written
                one["schema"] = {"const": ""}
    return operations(near)


def fuzz(of: Shown, operation: APIOperation, mode: GenerationMode, examples: settings) -> set[int]:
    """The statuses of the answers to one question asked in many ways; each conforms."""
    statuses = set()
    session = requests.Session()  # a connection for all of them

    @given(operation.as_strategy(generation_mode=mode))
    @examples
    def ask(case: Case) -> None:
        answer = case.call(base_url=of.address, session=session)
        statuses.add(answer.status_code)
        case.validate_response(answer, excluded_checks=UNTOLD)

    with session:
        ask()
    return statuses


def test_the_schema_tells_all_questions(of):
    told = json.loads(ask(of, "/schema")[1])
    assert told == schema()
    assert operations(told).keys() == {*ENDPOINTS, "read"}


@how_often
@pytest.mark.parametrize("name", ENDPOINTS)
def test_what_the_schema_allows(of, able, name, examples):
    near = able if name in NEED_A_MODEL else of
    assert 200 in fuzz(near, near_operations()[name], GenerationMode.POSITIVE, examples)
    found = fuzz(of, all_operations()[name], GenerationMode.POSITIVE, examples)
    assert found <= {200, 400, 404}


@how_often
@pytest.mark.parametrize("name", WITH_NUMBERS)
def test_what_the_schema_forbids(of, name, examples):
    found = fuzz(of, all_operations()[name], GenerationMode.NEGATIVE, examples)
    assert found <= {400, 403, 404}


@pytest.mark.parametrize("options", ["d_k=0", "d_k=257", "seed=-1", "first=x", "width=3"])
def test_options_that_the_schema_forbids(of, options):
    assert ask(of, f"/training?{options}")[0] == 400


@how_often
def test_a_text_that_is_sent_is_read_or_refused(reads, examples):
    near = copy.deepcopy(schema())
    asked = near["paths"]["/read"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    asked["properties"] |= {"model": {"enum": ["writer"]}, "text": {"const": "a ball"}}
    asked["properties"]["new_tokens"]["maximum"] = 3
    near, far = operations(near)["read"], all_operations()["read"]
    assert fuzz(reads, near, GenerationMode.POSITIVE, examples) == {200}
    assert fuzz(reads, far, GenerationMode.POSITIVE, examples) <= {400, 404}
    assert fuzz(reads, far, GenerationMode.NEGATIVE, examples) <= {400, 403, 404}


def sent(of: Shown, *lines: str) -> bytes:
    """What comes back to a request that is written by hand."""
    parts = urlsplit(of.address)
    with socket.create_connection((parts.hostname, parts.port), 10) as wire:
        head = [line.replace("HERE", parts.netloc) for line in lines]
        wire.sendall("\r\n".join([*head, "Connection: close", "", ""]).encode())
        return b"".join(iter(lambda: wire.recv(65536), b""))


def ask(of: Shown, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    wire = http.client.HTTPConnection(urlsplit(of.address).netloc, timeout=30)
    try:
        wire.request(method, path, headers=headers)
        answer = wire.getresponse()
        return answer.status, answer.read()
    finally:
        wire.close()


@pytest.mark.parametrize(
    "path",
    [
        "/tile/0/0/0/0/0/9999999999",
        "/tile/0/0/0/0/0/" + "9" * 5000,
        "/tile/999999999/999999999/999999999/999999999/999999999/999999999",
        "/tile/0/0/0/0/0/-1",
        "/tile/0/0/0/0/0/1.0",
        "/tile/0/0/0/0/0/1e3",
        "/tile/0/0/0/0/0/0x1",
        "/tile/0/0/0/0/0/%C2%B2",
        "/tile/0/0/0/0/0/%D9%A1",
        "/tile/0/0/0/0/0/%00",
        "/tile/0/0/0/0/0/0/",
        "/tile/0/0/0/0/0",
        "/tile/0/0/0/0/0/0?reduce=",
        "/tile/0/0/0/0/0/0?reduce=sum",
        "/tile/0/0/0/0/0/0?reduce=mean&exact=2",
        "/tile/0/0/0/0/0/0?exact=%D9%A1",
        "/tile/0/0/0/0/0/0?__proto__=1",
        "/keys/0/0?count=0",
        "/keys/0/0?count=1000000000",
        "/keys/0/0?first=-1",
        "/keys/0/0?first=+1",
        "/keys/0/0?first=%201",
        "/keys/0/0?first=" + "1" * 5000,
        "/page/../server.py",
        "/page/..%2Fserver.py",
        "/page/%2e%2e%2f%2e%2e%2fserver.py",
        "/page/..%5Cserver.py",
        "/page/%2Fetc%2Fpasswd",
        "/page//etc/passwd",
        "/page/.",
        "/page/%00",
        "/page/main.js%00.html",
        "/page/" + "a" * 300 + ".js",
        "/../../../../etc/passwd",
        "//etc/passwd",
        "/%ff%fe",
        "/%zz",
        "/" + "a" * 20_000,
        "/" + "a/" * 10_000,
        "/about?" + "&".join(f"x{i}=1" for i in range(2000)),
        "/About",
        "/_life",
        "/__class__/0/0",
    ],
    ids=lambda path: path[:40],
)
def test_a_path_that_leads_nowhere(of, path):
    status, body = ask(of, path)
    assert status in (400, 404)
    assert 0 < len(json.loads(body)["error"]) < 300


@pytest.mark.parametrize(
    "lines",
    [
        ["GET /about HTTP/1.1", "Host: evil.example"],
        ["GET /about HTTP/1.1", "Host: evil.example:80", "Host: HERE"],
        ["GET /about HTTP/1.1", "Host: HERE.evil.example"],
        ["GET /about HTTP/1.1", "Host: HERE@evil.example"],
        ["GET /about HTTP/1.1", "Host:"],
        ["GET /about HTTP/1.1"],
        ["GET /about HTTP/1.0"],
        ["GET http://evil.example/about HTTP/1.1", "Host: evil.example"],
        ["GET /about HTTP/1.1", "Host: HERE", "Origin: http://evil.example"],
        ["GET /about HTTP/1.1", "Host: HERE", "Origin: null"],
        ["GET /about HTTP/1.1", "Host: HERE", "Origin: https://HERE"],
        ["GET /about HTTP/1.1", "Host: HERE", "Origin: http://HERE.evil.example"],
        ["GET /about HTTP/1.1", "Host: HERE", "Origin: http://http://HERE"],
        ["POST /about HTTP/1.1", "Host: HERE", "Content-Length: 0"],
        ["PUT /about HTTP/1.1", "Host: HERE", "Content-Length: 0"],
        ["DELETE /about HTTP/1.1", "Host: HERE"],
        ["OPTIONS /about HTTP/1.1", "Host: HERE"],
        ["TRACE /about HTTP/1.1", "Host: HERE"],
        ["CONNECT evil.example:80 HTTP/1.1", "Host: HERE"],
        ["get /about HTTP/1.1", "Host: HERE"],
        ["GET /about\x00 HTTP/1.1", "Host: HERE"],
        ["GET /tile/0 0/0 HTTP/1.1", "Host: HERE"],
        ["GARBAGE"],
        ["\x16\x03\x01\x02\x00\x01\x00\x01\xfc"],
    ],
    ids=lambda lines: " ".join(lines)[:60],
)
def test_a_request_that_is_not_let_in(of, lines):
    answer = sent(of, *lines)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert body
    assert b"layers" not in body
    assert ask(of, "/about")[0] == 200


def test_what_is_asked_with_is_not_run(of):
    """An answer is no page of its own, whatever stands in the path."""
    status, body = ask(of, "/tile/%3Cscript%3Ealert(1)%3C/script%3E")
    assert status == 404
    assert b"<script>" not in body
    parts = sent(of, "GET /%3Cscript%3E HTTP/1.1", "Host: HERE").lower()
    assert b"content-type: application/json" in parts
    assert b"x-content-type-options: nosniff" in parts


def test_a_text_that_does_not_arrive_holds_nothing_up(reads, monkeypatch):
    monkeypatch.setattr(server, "WAIT", 0.1)
    head = ["POST /read HTTP/1.1", "Host: HERE", "Content-Type: application/json"]
    assert sent(reads, *head, "Content-Length: 100").startswith(b"HTTP/1.1 4")
    parts = urlsplit(reads.address)
    with socket.create_connection((parts.hostname, parts.port), 10) as wire:
        lines = [line.replace("HERE", parts.netloc) for line in head]
        wire.sendall("\r\n".join([*lines, "Content-Length: 100", "", "{"]).encode())
    assert ask(reads, "/about")[0] == 200


def test_many_at_once_are_answered_or_told_to_come_again(of):
    """More than wait at once: nothing breaks, and afterwards all is as before."""
    count = MOST_WAITING + 97
    with ThreadPoolExecutor(count) as pool:
        paths = [f"/column/6/0/{i % HEADS}/{i % 61}" for i in range(count)]
        statuses = [status for status, _ in pool.map(lambda path: ask(of, path), paths)]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= MOST_WAITING / 2
    assert ask(of, "/column/6/0/0/0")[0] == 200


def test_a_header_without_end_is_cut_off(of):
    with suppress(ConnectionError):
        sent(of, "GET /about HTTP/1.1", "Host: HERE", "X: " + "a" * 10**6)
    assert ask(of, "/about")[0] == 200


def test_who_goes_away_half_way_does_no_harm(of):
    parts = urlsplit(of.address)
    for size in range(1, 60, 3):
        with socket.create_connection((parts.hostname, parts.port), 10) as wire:
            wire.sendall(f"GET /heads HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()[:size])
    assert ask(of, "/about")[0] == 200

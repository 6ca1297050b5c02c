"""Texts that a page sends to its server."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from starlette.testclient import TestClient

from pellucid import load, pretrained
from pellucid.errors import TooLargeError
from pellucid.tasks import alignment as translation_alignment
from pellucid.tasks import translate
from pellucid.viewer import alignment, volumes
from pellucid.viewer import reading as module
from pellucid.viewer.catalogue import MOST_TEXT, Catalogue
from pellucid.viewer.reading import KEPT, MOST_NEW, Reader, SupersededError, models_at_hand
from pellucid.viewer.server import Server
from tests import writers

HERE = "127.0.0.1:7227"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("models") / "writer"
    writers.writer().save(directory)
    return {"writer": str(directory)}


@pytest.fixture
def client(models: dict[str, str]) -> Iterator[TestClient]:
    with TestClient(Server(Catalogue(), models=models).app, f"http://{HERE}") as found:
        yield found


def read(client: TestClient, text: str, new_tokens: int = 0) -> None:
    asked = {"model": "writer", "text": text, "new_tokens": new_tokens}
    assert client.post("/read", json=asked).status_code == 200


def test_what_is_read_is_shown_first_and_the_oldest_goes(client: TestClient) -> None:
    assert client.get("/about").json()["recordings"] == []
    texts = [f"a red ball {number}" for number in range(KEPT + 1)]
    for text in texts:
        read(client, text)
    about = client.get("/about").json()
    assert [one["text"] for one in about["recordings"]] == texts[:0:-1]
    assert {one["model"] for one in about["recordings"]} == {"writer"}
    assert about["edition"] == KEPT + 1


def test_the_weights_are_those_of_the_library(client: TestClient, models: dict[str, str]) -> None:
    read(client, "a red ball", 3)
    title, model = "a red ball", models["writer"]
    wanted = volumes.read(title, title, model=model, new_tokens=3, step=lambda *_: None)
    answer = client.get("/tile/1/0/2/0/0/0")
    found = torch.frombuffer(bytearray(answer.content), dtype=torch.float32)
    weights = wanted.seen.latest()[1].weights[0, 2]
    assert torch.equal(found.reshape(weights.shape), weights.float())
    assert client.get("/about").json()["recordings"][0]["prompt"] == wanted.written.prompt


def test_an_answer_about_what_was_there_before_is_refused(client: TestClient) -> None:
    read(client, "a red ball")
    row = "/row/0/0/0/0"
    assert client.get(row, headers={"X-Edition": "1"}).status_code == 200
    read(client, "a blue ball")
    assert client.get(row, headers={"X-Edition": "1"}).status_code == 409


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Content-Type": "text/plain"},
    ],
)
def test_another_site_reads_nothing(client: TestClient, headers: dict[str, str]) -> None:
    body = json.dumps({"model": "writer", "text": "a ball"})
    headers = {"Content-Type": "application/json", **headers}
    assert client.post("/read", content=body, headers=headers).status_code in (400, 403)
    assert client.get("/about").json()["edition"] == 0


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"model": "/etc", "text": "a ball"}, 404),
        ({"model": "decoder", "text": "a ball"}, 404),
        ({"model": "writer", "text": " "}, 400),
        ({"model": "writer", "text": "\ud800"}, 400),
        ({"model": "writer", "text": "a" * (MOST_TEXT + 1)}, 400),
        ({"model": "writer", "text": "a ball", "new_tokens": MOST_NEW + 1}, 400),
        ({"model": "writer", "text": "a ball", "new_tokens": True}, 400),
        ({"model": "writer", "text": "a ball " * writers.POSITIONS}, 400),
        ({"model": "writer", "text": "a ball", "layers": "0"}, 400),
        ([], 400),
    ],
)
def test_what_cannot_be_read_is_refused(client: TestClient, asked: object, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/read", content=json.dumps(asked), headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert client.get("/about").json()["recordings"] == []


def test_a_newer_text_cancels_the_one_before(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    known = volumes.read

    def slow(text: str, *given: object, **more: object) -> object:
        if text == "first":
            begun.set()
            assert go.wait(20)
        return known(text, *given, **more)

    monkeypatch.setattr(volumes, "read", slow)
    found = {}
    with TestClient(Server(Catalogue(), models=models).app, f"http://{HERE}") as client:

        def send(text: str) -> None:
            found[text] = client.post("/read", json={"model": "writer", "text": text}).status_code

        first = threading.Thread(target=send, args=("first",))
        first.start()
        assert begun.wait(20)
        second = threading.Thread(target=send, args=("second",))
        second.start()
        go.set()
        first.join()
        second.join()
        assert [one["text"] for one in client.get("/about").json()["recordings"]][:1] == ["second"]
    assert found["second"] == 200


@pytest.mark.parametrize("new_tokens", [0, 3])
def test_reading_stops_in_the_middle_of_a_pass(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch, new_tokens: int
) -> None:
    asked = {"model": "writer", "text": "a ball", "new_tokens": new_tokens}
    reading = Reader(models).ask(json.dumps(asked).encode())
    inner = torch.nn.LayerNorm.forward

    def cancelling(self: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
        reading.cancel()
        return inner(self, x)

    monkeypatch.setattr(torch.nn.LayerNorm, "forward", cancelling)
    with pytest.raises(SupersededError):
        reading.find()
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_reading_stops_between_steps(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = json.dumps({"model": "writer", "text": "a ball", "new_tokens": 5}).encode()
    reader = Reader(models)
    first = reader.ask(asked)
    second = reader.ask(asked)
    with pytest.raises(SupersededError):
        first.find()
    monkeypatch.setattr(module, "MOST_SECONDS", -1.0)
    with pytest.raises(TooLargeError, match="longer than"):
        second.find()


def test_the_models_at_hand_are_those_installed_and_those_named(tmp_path: Path) -> None:
    named = str(tmp_path / "mine")
    found = models_at_hand(named, None, "decoder", "a/decoder")
    assert {"decoder", "translator", "sentiment"} <= found.keys()
    assert found["mine"] == named
    assert found["a/decoder"] == "a/decoder"
    assert found["decoder"] == "decoder"


@pytest.mark.parametrize("reads", ["the translation", "the translation, as a target"])
def test_the_page_aligns_as_the_command_does(reads: str, tmp_path: Path) -> None:
    text, model = "The king sent his servant to the city.", load(pretrained.TRANSLATOR)
    [found] = translate(model, [text])
    wanted = translation_alignment(model, found)
    more = {"new_tokens": 60} if reads == "the translation" else {"target": found.text}
    read = volumes.read(text, text, model="translator", step=lambda *_: None, **more)
    grid = alignment.alignment(read, 0)
    assert (grid["source"], grid["target"]) == (wanted.source, wanted.target)
    # The same heads of the same tokens, in passes whose shapes differ.
    torch.testing.assert_close(torch.tensor(grid["weights"]), wanted.weights, atol=1e-5, rtol=0)
    read.seen.save(tmp_path / "a.safetensors")
    again = alignment.alignment(volumes.saved(str(tmp_path / "a.safetensors"), ["decoder.*"]), 0)
    assert again["of"] == grid["of"] != "the mean over all layers and heads"
    words = len(again["target"])  # a file does not know the last word, which was never read
    kept = torch.tensor(grid["weights"][:words])
    torch.testing.assert_close(torch.tensor(again["weights"]), kept, atol=1e-6, rtol=0)

"""The command: what it refuses before a model is read, and that it runs until Ctrl-C."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.parse import urlsplit

import pytest

from tests import forked
from tests.viewer.recordings import recording


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "seen.safetensors"
    recording(layers=1, items=1).save(path)
    return path


def test_two_recordings_are_shown_until_ctrl_c(saved):
    command = [*forked.command(), "view", saved, "--against", saved, "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = urlsplit(process.stdout.readline().strip())
            assert process.stdout.readline() == "Ctrl-C stops.\n"
            assert address.hostname == "127.0.0.1"
            asked = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
            asked.request("GET", "/about")
            about = json.load(asked.getresponse())
            asked.close()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert [one["title"] for one in about["recordings"]] == ["seen.safetensors"] * 2
    assert [layer["recording"] for layer in about["layers"]] == [0, 1]


def test_without_a_text_the_page_asks_for_one(tmp_path):
    command = [*forked.command(), "view", "--no-browser", "--model", tmp_path / "me"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            with urllib.request.urlopen(f"{address}about", timeout=60) as answer:
                about = json.load(answer)
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert about["recordings"] == []
    assert {"decoder", "translator", "sentiment", "me"} <= set(about["models"])


def test_elsewhere_the_address_holds_a_token(saved):
    command = [*forked.command(), "view", saved, "--host", "0.0.0.0"]
    hidden = os.environ | {"BROWSER": "true"}
    with subprocess.Popen(
        [*command, "--no-browser"], stdout=subprocess.PIPE, text=True, env=hidden
    ) as process:
        try:
            address = urlsplit(process.stdout.readline().strip())
            assert len(address.path.strip("/")) > 20
            for path, status in (("/about", 404), (f"{address.path}about", 200)):
                asked = http.client.HTTPConnection("127.0.0.1", address.port, timeout=60)
                asked.request("GET", path)
                assert asked.getresponse().status == status
                asked.close()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


READER = """
import sys, urllib.request
open(sys.argv[2], "wb").write(urllib.request.urlopen(sys.argv[1] + "about", timeout=20).read())
"""


def test_a_browser_that_runs_in_the_terminal_is_served(saved, tmp_path):
    reader, read = tmp_path / "reader.py", tmp_path / "read.json"
    reader.write_text(READER)
    browser = {"BROWSER": f"{sys.executable} {reader} %s {read}"}
    command = [*forked.command(), "view", saved]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | browser) as process:
        try:
            until = time.monotonic() + 60
            while not (read.exists() and read.stat().st_size) and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert json.loads(read.read_bytes())["title"] == saved.name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "poem"], 'view takes one text; put it in quotes: "a poem"'),
        (["--new-tokens", "3"], 'give either a text, like "Write a poem", or --file'),
        (["text", "--port", "65536"], "--port must be from 0 to 65535, not 65536"),
        (["text", "--host", "here"], "--host must be an address like 127.0.0.1, not 'here'"),
        (["x.safetensors", "--layers", "1"], "a recording is shown as it is"),
        (["x.safetensors", "--against-model", "m"], "--against-model reads a text"),
        (["nowhere.safetensors"], "nowhere.safetensors"),
        (["text", "--new-tokens", "3", "--target", "x"], "give --target"),
        (["text", "--model", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_what_is_refused(refused, arguments, said):
    assert said in refused("view", *arguments, "--no-browser")


def test_a_port_that_is_taken(refused, saved):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("view", saved, "--port", port, "--no-browser")
    assert f"cannot listen on 127.0.0.1, port {port}" in said

"""`pellucid learn` from the command line."""

import json
import re

import pytest

from pellucid.lessons.stations import STATIONS


def test_the_path_is_listed(run):
    status, out, err = run("learn")
    assert (status, err) == (0, "")
    for number, name in enumerate(STATIONS, start=1):
        assert re.search(rf"(?m)^ *{number}  {name} ", out)
    assert [one["name"] for one in json.loads(run("learn", "--json")[1])] == list(STATIONS)


@pytest.mark.parametrize("width", [40, 100])
def test_a_station_is_read_where_nobody_can_answer(run, width):
    status, out, err = run("learn", "scores", width=width)
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= width
    text = " ".join(out.split())
    assert "The answer is 3: That of 'a'." in text
    assert "Next: pellucid learn scale" in text
    assert json.loads(run("learn", "3", "--json")[1])["name"] == "scores"


def test_a_station_is_exported(run, tmp_path):
    paths = [tmp_path / name for name in ("mask.ipynb", "mask.html", "mask.svg", "mask.png")]
    options = zip(("--notebook", "--slides", "--svg", "--png"), map(str, paths), strict=True)
    status, out, err = run("learn", "mask", *(part for pair in options for part in pair))
    assert (status, out) == (0, "")
    assert err.count("wrote") == 4
    assert all(path.stat().st_size > 2000 for path in paths)
    status, _, err = run("learn", "mask", "--slides", str(paths[1]))
    assert status == 2
    assert "--overwrite" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["learn", "love"], "no station 'love'; there are: lookup, projections"),
        (["learn", "--svg", "a.svg"], "give a station to write"),
        (["learn", "mask", "--notebook", "a.html"], "a.html"),
    ],
)
def test_mistakes(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_a_class_is_shown_the_page(run, monkeypatch):
    served = []
    monkeypatch.setattr(
        "pellucid.viewer.serve.serve", lambda *given, place: served.append((given[0], place))
    )
    assert run("learn", "6", "--class", "--no-browser")[0] == 0
    assert run("learn", "--page", "--no-browser")[0] == 0
    assert served == [([], "learn?station=mask&class=1"), ([], "learn")]
    status, _, err = run("learn", "mask", "--class", "--json")
    assert status == 2
    assert "leave out other options" in err

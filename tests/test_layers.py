"""The table of rooms in CONTRIBUTING.md is true, and no file imports itself by way of others."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
ROW = re.compile(r"\| \[src/pellucid/([\w\\]+)(?:\.py)?\]\([^)]*\) \|.*\| ([^|]*) \|")
"""A room, and what it imports, in the table."""
FACE = "__init__"
"""The public face: what it names loads on first use."""


def name_of(file):
    parts = file.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in SRC.rglob("*.py")}


def imports(name):
    """The files of ours that one imports, late imports and those for types included.

    That a part of a package imports the package goes without saying.
    """
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: {package}: relative imports hide where they go"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in FILES else node.module)
    return {one for one in found if one in FILES and not f"{name}.".startswith(f"{one}.")}


def room_of(name):
    return name.split(".")[1] if "." in name else FACE


def table():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = {room.replace("\\", ""): said for room, said in ROW.findall(text)}
    return {room: set(re.findall(r"\w+", said)) for room, said in rows.items() if room != FACE}


def test_no_file_imports_itself_by_way_of_others():
    try:
        tuple(TopologicalSorter({name: imports(name) for name in FILES}).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_table_of_rooms_is_true():
    found = {room_of(name): set() for name in FILES}
    for name in FILES:
        found[room_of(name)] |= {room_of(one) for one in imports(name)} - {room_of(name)}
    rooms = {room for room in found if room not in (FACE, "__main__")}
    assert table().keys() == rooms
    for room in rooms:
        assert table()[room] == found[room] - {FACE}, room


def test_each_room_imports_rooms_above_it_in_the_table():
    above = set()
    for room, imported in table().items():
        assert imported <= above, room
        above.add(room)

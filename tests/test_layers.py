"""The table of packages in CONTRIBUTING.md is true, and no file imports itself by way of others."""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
ROW = re.compile(r"\| \[src/pellucid/([\w\\]+)(?:\.py)?\]\([^)]*\) \|.*\| ([^|]*) \|")
"""A package, and what it imports, in the table."""
FACE = "__init__"
"""The public face: what it names loads on first use."""


def name_of(file):
    parts = file.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in SRC.rglob("*.py")}


@cache
def imports(name):
    """The files of ours that one imports, late imports and those for types included.

    That a part of a package imports the package goes without saying.
    """
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative imports hide where they go"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in FILES else node.module)
    return {one for one in found if one in FILES and not f"{name}.".startswith(f"{one}.")}


def package_of(name):
    return name.split(".")[1] if "." in name else FACE


def table():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = {package.replace("\\", ""): said for package, said in ROW.findall(text)}
    return {package: set(re.findall(r"\w+", said)) for package, said in rows.items()}


def test_no_file_imports_itself_by_way_of_others():
    try:
        tuple(TopologicalSorter({name: imports(name) for name in FILES}).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_table_of_packages_is_true():
    found = {package_of(name): set() for name in FILES}
    for name in FILES:
        found[package_of(name)] |= {package_of(one) for one in imports(name)} - {package_of(name)}
    packages = {package for package in found if package not in (FACE, "__main__")}
    assert table().keys() == packages
    for package in packages:
        assert table()[package] == found[package] - {FACE}, package


def test_each_package_imports_packages_above_it_in_the_table():
    above = set()
    for package, imported in table().items():
        assert imported <= above, package
        above.add(package)

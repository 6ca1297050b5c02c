"""What users may rely on: the names, what an import costs, and the tree of errors."""

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pellucid
from pellucid import errors

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "numpy", "numba", "triton", "transformers", "rich", "typer"}


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_names_do_not_change_by_accident():
    assert sorted(pellucid.__all__) == [
        "AttentionWeights",
        "PellucidError",
        "Recording",
        "__version__",
        "ablate",
        "attention",
        "energies",
        "intervene",
        "layers",
        "lens",
        "lessons",
        "load",
        "masks",
        "models",
        "tasks",
        "training",
        "watch",
    ]
    assert set(pellucid.__all__) <= set(dir(pellucid))


@pytest.mark.parametrize("name", sorted(pellucid.__all__))
def test_every_name_exists_and_is_documented(name):
    thing = getattr(pellucid, name)
    if name != "__version__":
        assert inspect.getdoc(thing)
    assert f"pellucid.{name}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["lens", "tasks", "training", "layers", "models"])
def test_no_function_hides_the_module_of_its_name(package):
    whole = getattr(pellucid, package)
    modules = [info.name for info in pkgutil.iter_modules(whole.__path__)]
    hidden = [
        name
        for name in modules
        if importlib.import_module(f"{whole.__name__}.{name}") is not getattr(whole, name)
    ]
    assert hidden == []


def test_an_alignment_is_asked_for_by_name():
    assert callable(pellucid.tasks.alignment)
    assert callable(pellucid.tasks.translate)
    assert pellucid.tasks.translation.translate is pellucid.tasks.translate


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pellucid' has no attribute 'atention'"):
        _ = pellucid.atention


def test_attention_is_a_function_and_the_home_of_its_masks():
    from pellucid.attention import attention, masks

    assert callable(pellucid.attention)
    assert pellucid.attention.attention is attention
    assert pellucid.masks is masks


def test_the_import_loads_nothing_heavy():
    ran = run_python(
        "import sys, pellucid, pellucid.errors; "
        f"print(*sorted({HEAVY!r} & set(sys.modules)), end='')"
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_version_is_the_package_s():
    assert re.fullmatch(r"\d+\.\d+\.\d+", pellucid.__version__)


def drawn_tree():
    """(name, built-in) of each error under PellucidError in the drawing in errors.py."""
    return set(re.findall(r"[├└]── (\w+) +\((\w+)\)", errors.__doc__))


def test_the_errors_are_the_tree_that_is_drawn():
    real = {
        (name, parent.__name__)
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind is not errors.PellucidError
        for parent in kind.__bases__
        if parent is not errors.PellucidError
    }
    assert real == drawn_tree()
    for name, builtin in real:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.PellucidError)
        assert issubclass(kind, getattr(builtins, builtin))


def test_an_unknown_name_reads_as_a_sentence():
    assert str(errors.UnknownNameError("no module called 'x'")) == "no module called 'x'"


def test_no_test_module_is_read_by_another():
    """What tests share stands in plain modules: else one file's tests hang on another's."""
    read = {
        (path.name, name)
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (getattr(node, "module", None) or "", *(one.name for one in node.names))
        if any(part.startswith("test_") for part in name.split("."))
    }
    assert not read


def test_what_was_renamed_is_found_and_says_its_new_name():
    with pytest.warns(DeprecationWarning, match=r"use pellucid\.training\.run_setup"):
        assert pellucid.training.runs is pellucid.training.run_setup

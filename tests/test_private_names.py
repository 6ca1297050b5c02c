"""No package touches the private names of another: ruff's SLF001 where it can, this where not."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "pellucid"
OUTSIDE = [*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("recipes/**/*.py")]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("_")  # as those that notebooks ask for


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def package_of(path: Path) -> str:
    """The package right below pellucid, or the file itself where it is in none."""
    return path.relative_to(SOURCE).parts[0] if path.is_relative_to(SOURCE) else "outside"


def private_imports(tree: ast.AST, package: str) -> Iterator[str]:
    """What is imported under a private name from another package of pellucid."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            first, *parts = name.split(".")
            if first == "pellucid" and parts and parts[0] != package:
                yield from [name] if any(map(is_private, parts)) else []


def private_names_of_attention() -> set[str]:
    """The private attributes, methods and functions of the heart."""
    found = set()
    for path in SOURCE.glob("attention/**/*.py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return set(filter(is_private, found))


def touched(tree: ast.AST) -> Iterator[str]:
    """Private names that are asked of anything but the class's own `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            yield from [] if is_own else [node.attr]


@cache
def private_names_in(path: Path) -> tuple[list[str], list[str]]:
    """Those that it imports from other packages, and those that it touches."""
    tree = parsed(path)
    return [*private_imports(tree, package_of(path))], [*touched(tree)]


def test_nobody_imports_a_private_name_from_another_package() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in [*SOURCE.glob("**/*.py"), *OUTSIDE]
        for name in private_names_in(path)[0]
    ]
    assert not found


def test_nobody_outside_the_heart_touches_its_private_names() -> None:
    names = private_names_of_attention()
    assert {"_of", "_flat_logsumexp", "_join_spans"} <= names
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in [*SOURCE.glob("**/*.py"), *OUTSIDE]
        if package_of(path) != "attention"
        for name in private_names_in(path)[1]
        if name in names
    ]
    assert not found


def test_what_is_looked_for_is_found() -> None:
    tree = ast.parse(
        "from pellucid.lens.attention_rollout import _chain\nimport torch._ops\n"
        "weights._of\nself._of\nseen.weights._of.query\n"
    )
    assert list(private_imports(tree, "viewer")) == ["pellucid.lens.attention_rollout._chain"]
    assert not list(private_imports(tree, "lens"))
    assert list(touched(tree)) == ["_of", "_of"]

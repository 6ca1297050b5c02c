"""Commands print, and what they call does not: so it serves programs as well as people."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "pellucid"
PRINTERS = ("commands", "cli.py", "__main__.py")
FOR_PRINTING = ("typer", "click", "rich", "pellucid.commands", "pellucid.cli")
MEASURE = "rich.cells"
"""How wide letters are in a terminal, which prints nothing."""


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of all modules that are imported, and of what is imported from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import, which this does not read"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def is_in(name: str, module: str) -> bool:
    return f"{name}.".startswith(f"{module}.")


def printing(tree: ast.AST) -> list[str]:
    """What prints, or is there to print with."""
    found = [
        name
        for name in imported(tree)
        if any(is_in(name, one) for one in FOR_PRINTING) and not is_in(name, MEASURE)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "print", "sys.stdout.write", "sys.stderr.write",
        ):  # fmt: skip
            found.append(ast.unparse(node.func))
    return found


def test_what_is_no_command_does_not_print():
    read = [
        path for path in SOURCE.glob("**/*.py") if path.relative_to(SOURCE).parts[0] not in PRINTERS
    ]
    assert {"lens", "tasks", "lessons", "viewer", "training"} <= {path.parent.name for path in read}
    found = {
        str(path.relative_to(SOURCE)): what
        for path in read
        if (what := printing(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert not found


def test_what_is_looked_for_is_found():
    tree = ast.parse(
        "import typer\nimport rich.cells\nfrom rich.cells import cell_len\n"
        "from pellucid import commands\nimport clicker\nself.print(x)\n"
        "def late():\n    from rich.text import Text\n    print(x)\n    sys.stderr.write(x)\n"
    )
    assert printing(tree) == [
        "typer", "pellucid.commands", "rich.text.Text", "print", "sys.stderr.write",
    ]  # fmt: skip

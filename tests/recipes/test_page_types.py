"""`make lint` checks the types of the page where Node is there, and goes on where it is not."""

from pathlib import Path

import pytest

from recipes import page_types


def pretend(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str | None) -> None:
    """Put a program in place of npx; none if None."""
    if script is not None:
        program = directory / "npx"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))


@pytest.mark.parametrize(
    ("script", "reason"),
    [(None, "cannot run npx"), ("echo no network >&2; exit 1", "TypeScript: no network")],
)
def test_without_node_or_typescript_a_line_says_so(tmp_path, monkeypatch, capsys, script, reason):
    pretend(tmp_path, monkeypatch, script)
    assert page_types.main() == 0
    assert "The types of the page were not checked" in (said := capsys.readouterr().out)
    assert reason in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("status", [0, 2])
def test_the_exit_status_is_that_of_the_compiler(tmp_path, monkeypatch, status):
    check = f'case "$*" in *--version*) exit 0;; *--project*tsconfig.json) exit {status};; esac'
    pretend(tmp_path, monkeypatch, f"{check}; exit 7")
    assert page_types.main() == status

"""The documents tell the truth: every snippet, path, name and command in them is tried."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pellucid.cli import app
from pellucid.film import style

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def python_in(page):
    """The python blocks of a page as one program, each line where it stands in the page."""
    lines, inside, program = text_of(page).splitlines(), False, []
    for line in lines:
        if line.startswith("```"):
            inside = line == "```python"
            program.append("")
        else:
            program.append(line if inside else "")
    return "\n".join(program)


def found_in(pages, pattern):
    return sorted({(page, match) for page in pages for match in re.findall(pattern, text_of(page))})


def needs_film(does):
    for module in ("skia", "av", "fontpkg_inter", "espeakng_loader") if does else ():
        pytest.importorskip(module, reason="needs the extra film", exc_type=ImportError)


WITH_PYTHON = [page for page in PAGES if python_in(page).strip()]


def test_there_is_python_to_run():
    assert {"README.md", "docs/ideas.md"} <= set(WITH_PYTHON)


@pytest.mark.filterwarnings("default")  # the models that a snippet loads are not ours
@pytest.mark.parametrize("page", WITH_PYTHON)
def test_every_snippet_runs_and_gives_what_its_comment_says(page, tmp_path, monkeypatch):
    needs_film(page == "docs/film.md")
    monkeypatch.chdir(tmp_path)
    program = python_in(page)
    lines = program.splitlines()
    names = {}
    for statement in ast.parse(program).body:
        where = f"{page}:{statement.lineno}"
        _, _, comment = lines[statement.end_lineno - 1].partition("  # ")
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), where, "eval"), names)
            assert not comment or repr(value) == comment, where
        else:
            assert not comment, f"{where}: a comment that nothing checks"
            exec(compile(ast.Module([statement], []), where, "exec"), names)


@pytest.mark.parametrize(("page", "link"), found_in(PAGES, r"\]\(([^)#:]+)\)"))
def test_every_link_leads_somewhere(page, link):
    assert ((ROOT / page).parent / link).exists()


def test_every_name_exists():
    """For who imports pellucid and nothing more: in a process of its own."""
    names = sorted({name for _, name in found_in(PAGES, r"`(pellucid\.[\w.]+)`")})
    assert "pellucid.training.run_setup.train" in names
    program = "\n".join(["import pellucid", *names])
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr


# In a sentence between backticks, or a line of a block up to the comment.
COMMANDS = sorted(
    {
        command
        for pattern in (
            r"`pellucid ((?:explain|scaling)[^`]*)`",
            r"(?m)^pellucid ([^#\n]+?) *(?:#|$)",
        )
        for _, command in found_in(PAGES, pattern)
        if command != "explain"
    }
)


FILM = 'film "Write a poem" --gif poem.gif'


def timely(command):
    """A film takes seconds: one is made in each run."""
    is_slow = command.startswith("film") and command != FILM
    return pytest.param(command, marks=pytest.mark.slow) if is_slow else command


def test_a_film_is_made_in_each_run():
    assert FILM in COMMANDS


@pytest.mark.parametrize("command", [timely(one) for one in COMMANDS])
def test_every_command_runs(command, tmp_path, monkeypatch):
    needs_film(command.startswith("film"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "docs" / "examples", tmp_path, dirs_exist_ok=True)
    # All of `pellucid view` but the server, which would go on for ever.
    monkeypatch.setattr("pellucid.viewer.serve.serve", lambda volumes, *_: print(len(volumes)))
    monkeypatch.setitem(style.SIZES, "1080p", (320, 180))
    for frames in ("FRAMES", "GIF_FRAMES"):  # of a second
        monkeypatch.setattr(f"pellucid.film.encoding.{frames}", 5)
    for saving in COMMANDS:  # what another command reads
        _, _, saved = saving.partition("--save ")
        if saved and saving != command and saved.split()[0] in shlex.split(command):
            CliRunner().invoke(app, shlex.split(saving), catch_exceptions=False)
    ran = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    assert ran.output  # where a file is written, that it was


@pytest.mark.parametrize(
    "target", sorted({t for _, t in found_in(PAGES, r"(?:`|^|\n {0,4})make ([a-z]+)")})
)
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", text_of("Makefile"), re.MULTILINE)

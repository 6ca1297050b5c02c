"""Nothing of a user's is destroyed: one rule for every file that a command writes."""

import os
import runpy
import subprocess

import pytest
import torch
import typer
from safetensors import safe_open

from pellucid import Recording, cli, errors
from pellucid.common import files
from pellucid.common.files import flush, to_json, write_whole
from pellucid.models import Config, Encoder
from pellucid.tasks.classify import Head
from pellucid.text import table_writing
from tests import forked

COMMANDS = {
    " ".join(filter(None, (above, name))): command
    for above, group in (("", typer.main.get_command(cli.app)), ("train", None))
    for name, command in (group or typer.main.get_command(cli.app).commands[above]).commands.items()
    if not hasattr(command, "commands")
}
WRITTEN = {
    "output": ".json",
    "html": ".html",
    "slides": ".html",
    "svg": ".svg",
    "png": ".png",
    "notebook": ".ipynb",
    "save": ".safetensors",
    "gif": ".gif",
}
OTHERWISE = {
    ("export", "output"): ".html",
    ("film", "output"): ".mp4",
    ("explain", "save"): ".json",
}
READ = {
    "over",
    "lesson",
    "file",
    "files",
    "examples",
    "head",
    "recording",
    "held_out",
    "base",
    "config",
    "resume",
}
BEGINS = {
    ".json": b"{}",
    ".csv": b"a,b\n",
    ".html": b"<!doctype html>\n",
    ".svg": b"<svg></svg>",
    ".png": b"\x89PNG\r\n",
    ".ipynb": b"{}",
    ".npy": b"\x93NUMPY",
    ".mp4": b"\0\0\0\x1cftypisom",
    ".gif": b"GIF89a",
}
GIVEN = {
    "explain": ["--example", "poem"],
    "learn": ["lookup"],
    "film": ["--example", "poem"],
    "scaling": ["--samples", "13", "--keys", "5", "--dims", "2"],
    "watch": ["Write a poem", "--layers", "0"],
    "trace": ["Write a poem"],
    "why": ["Write a poem", "--head", "0.0"],
    "ablate": ["Write a poem", "--layers", "0", "--controls", "0"],
    "export": ["Write a poem"],
    "embed": ["a text"],
    "similar": ["a query", "{texts}"],
    "cluster": ["{texts}"],
    "classify": ["a text"],
    "generate": ["Once"],
    "translate": ["A text"],
}
"""What a command needs besides its outputs."""


def outputs():
    """(command, option, ending) of all that a command writes but directories of models."""
    for name, command in COMMANDS.items():
        for one in command.params:
            is_directory = name.startswith("train ") or one.metavar == "DIR"
            if one.name in WRITTEN and not is_directory:
                ending = OTHERWISE.get((name, one.name), WRITTEN[one.name])
                yield name, max(one.opts, key=len), ending


OUTPUTS = list(outputs())


def arguments(command, option, path, texts):
    given = [one.format(texts=texts) for one in GIVEN[command]]
    if (command, option) == ("classify", "--save"):
        given = ["--examples", str(texts)]
    return [command, *given, option, str(path)]


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("text,label\na cat,x\na dog,y\n")
    return path


def recording():
    return Recording.from_attentions([torch.full((1, 2, 3, 3), 1 / 3)])


def recorded(path):
    recording().save(path)


def headed(path):
    Head(labels=("x", "y"), weight=torch.zeros(2, 3), bias=torch.zeros(2)).save(path)


def made(path, command):
    """A file of the kind that the command writes there."""
    if path.suffix == ".safetensors":
        (headed if command == "classify" else recorded)(path)
    else:
        path.write_bytes(BEGINS[path.suffix])
    return path.read_bytes()


def test_every_path_of_every_command_is_known_as_read_or_written():
    assert {name for name, *_ in OUTPUTS} == set(GIVEN)
    for name, command in COMMANDS.items():
        of_files = {
            one.name
            for one in command.params
            if "FILE" in str(one.metavar) or (one.name in WRITTEN and one.metavar != "DIR")
        }
        assert of_files <= READ | WRITTEN.keys(), name
        if of_files & WRITTEN.keys():
            assert "--overwrite" in {opt for one in command.params for opt in one.opts}, name


@pytest.mark.parametrize(("command", "option", "ending"), OUTPUTS)
def test_a_file_that_is_there_stays(command, option, ending, texts, tmp_path, refused):
    path = tmp_path / f"there{ending}"
    before = made(path, command)
    complaint = refused(*arguments(command, option, path, texts))
    assert complaint.startswith(f"'{path}' already exists; --overwrite replaces it")
    assert path.read_bytes() == before


@pytest.mark.parametrize(("command", "option", "ending"), OUTPUTS)
@pytest.mark.parametrize("begin", [b"\xff\xd8\xff\0", b"SQLite format 3\0"])
def test_a_file_of_another_kind_stays_whoever_asks(
    command, option, ending, begin, texts, tmp_path, refused
):
    path = tmp_path / f"there{ending}"
    path.write_bytes(begin)
    complaint = refused(*arguments(command, option, path, texts), "--overwrite")
    assert complaint.startswith(f"'{path}' already exists and is not ")
    assert complaint.endswith("give another name")
    assert path.read_bytes() == begin


@pytest.mark.parametrize(("command", "option", "ending"), OUTPUTS)
def test_a_name_that_says_another_kind_is_refused(
    command, option, ending, texts, tmp_path, refused
):
    path = tmp_path / "new.jpg"
    complaint = refused(*arguments(command, option, path, texts))
    assert "must end in" in complaint or "the name ends in .jpg" in complaint
    assert not path.exists()


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
@pytest.mark.parametrize(
    ("command", "option", "ending"), [one for one in OUTPUTS if one[0] not in ("scaling", "learn")]
)
def test_what_a_command_reads_is_not_what_it_writes(
    command, option, ending, link, tmp_path, refused
):
    read = tmp_path / f"read{ending}"
    before = made(read, command)
    path = read
    if link is not None:
        path = tmp_path / f"link{ending}"
        link(read, path)
    if option == "--save" and command == "explain":
        given = [command, "--from", str(read)]
    elif command in ("explain", "film"):  # whose input is a model
        given = [command, "Write a poem", "--model", str(tmp_path)]
    elif command in ("similar", "cluster"):
        given = [command, *(["a query"] if command == "similar" else []), str(read)]
    elif option == "--save" and command == "classify":
        given = [command, "--examples", str(read)]
    else:
        given = [command, "--file", str(read)]
    complaint = refused(*given, option, str(path), "--overwrite")
    assert "write to another" in complaint
    assert read.read_bytes() == before


def test_standard_input_is_read_too(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text\na cat\n")
    command = [*forked.command(), "translate", "-o", str(path), "--overwrite"]
    with path.open() as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is read by standard input" in done.stderr
    assert path.read_text() == "text\na cat\n"


def test_one_of_the_same_kind_is_replaced_where_that_is_asked(run, tmp_path):
    page = tmp_path / "poem.html"
    for _ in range(2):
        assert run("explain", "--example", "poem", "--html", page, "--overwrite")[0] == 0
    assert page.read_text().count("36%") > 0
    assert run("scaling", *GIVEN["scaling"], "--svg", page.with_suffix(".svg"))[0] == 0
    empty = tmp_path / "empty.html"
    empty.touch()
    assert run("explain", "--example", "poem", "--html", empty, "--overwrite")[0] == 0


def test_a_file_that_appears_during_the_work_stays(tmp_path):
    path = tmp_path / "a.csv"
    for taken in (path, path.with_name("link.csv")):

        def write(taken=taken):
            with files.written_whole(taken, "csv") as aside:
                aside.write_text("ours")
                taken.write_text("theirs")

        with pytest.raises(errors.ExistsError, match="overwrite=True replaces it"):
            write()
        assert taken.read_text() == "theirs"


def test_that_it_appears_at_the_last_moment_is_seen(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    real = files._move

    def late(aside, target):
        target.write_text("theirs")
        real(aside, target)

    monkeypatch.setattr(files, "_move", late)
    for linked in (True, False):
        if not linked:  # as on a file system without links
            monkeypatch.setattr(os, "link", lambda *_: os.stat("/nowhere"))
        with pytest.raises(errors.ExistsError):
            write_whole(path, "ours", "csv")
        assert [one.read_text() for one in tmp_path.iterdir()] == ["theirs"]
        path.unlink()


def test_in_python_too(tmp_path):
    path, head = tmp_path / "a.safetensors", tmp_path / "head.safetensors"
    for make in (recorded, headed):
        with pytest.raises(FileNotFoundError):
            path.read_bytes()
        make(path)
        with pytest.raises(FileExistsError, match="overwrite=True"):
            make(path)
        path.unlink()
    recorded(path)
    headed(head)
    recording().save(path, overwrite=True)
    assert isinstance(Recording.load(path), Recording)
    Head.load(head).save(head, overwrite=True)
    with pytest.raises(errors.ExistsError, match="is not a recording"):
        recording().save(head, overwrite=True)
    model = Encoder(Config(kind="encoder", vocabulary=11, width=8, heads=2, hidden=8, layers=1))
    model.save(tmp_path / "model")
    with pytest.raises(errors.ExistsError, match=r"already has a config\.json; overwrite=True"):
        model.save(tmp_path / "model")
    model.save(tmp_path / "model", overwrite=True)


def test_a_file_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def noted(*given, name=name, real=real):
            calls.append((name, os.path.isdir(f"/dev/fd/{given[0]}") if name == "fsync" else None))
            return real(*given)

        monkeypatch.setattr(os, name, noted)
    write_whole(tmp_path / "a", "text")
    assert calls == [("fsync", False), ("replace", None), ("fsync", True)]
    flush(tmp_path / "nowhere")  # which some systems cannot do, and that is no error


# What is said


def test_no_columns_are_as_none_given(run):
    for width in ("0", "-3", "wide"):
        status, out, err = run("explain", "--example", "poem", width=width)
        assert (status, err) == (0, "")
        assert "36%" in out


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "'/a/b': Permission denied"),
        (OSError("the tape is torn"), "the tape is torn"),
        (OSError(), "OSError"),
    ],
)
def test_an_error_keeps_its_message(error, told, monkeypatch, refused):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("pellucid.lessons.examples.walk_example", fail)
    assert refused("explain", "--example", "poem") == told


def test_a_file_that_ends_too_early_is_no_end_of_input(monkeypatch, run):
    def fail(*_, **__):
        raise EOFError("Ran out of input")

    monkeypatch.setattr("pellucid.lessons.examples.walk_example", fail)
    status, out, err = run("explain", "--example", "poem")
    assert (status, out) == (2, "")
    assert err.strip() == "pellucid: a file ends too early: Ran out of input"


def test_a_circle_of_links_is_one_line(tmp_path, refused):
    circle = tmp_path / "circle.csv"
    circle.symlink_to(circle)
    for command in (
        ["train", "decoder", circle, "-o", tmp_path / "model"],
        ["train", "decoder", circle, "-o", tmp_path / "model", "--from", circle],
        ["explain", "--example", "poem", "--html", circle],
        ["embed", "--file", circle],
        ["watch", "--file", circle],
        ["heads", circle],
        ["embed", "a", "--model", circle],
    ):
        assert str(circle) in refused(*command)


def test_what_cannot_be_read_is_not_called_damaged(tmp_path):
    from pellucid.models.checkpoints import weight_files

    with (
        pytest.raises(errors.FileError, match=r"its x cannot be read: .*No such file"),
        weight_files._guarded(tmp_path / "x"),
    ):
        safe_open(tmp_path / "x", framework="pt")


def test_a_cell_that_a_spreadsheet_would_run_is_text(tmp_path):
    path = tmp_path / "a.csv"
    cells = ["=1+1", "+1", "-1", "@a", "\ta", "a=1"]
    table_writing.write(path, {"text": cells, "score": [-0.5, -1.0, -2, 3, 4, 5]})
    read = path.read_text().splitlines()[1:]
    assert read == ["'=1+1,-0.5", "'+1,-1.0", "'-1,-2", "'@a,3", "'\ta,4", "a=1,5"]


@pytest.mark.parametrize(
    "command",
    [["explain"], ["explain", "--json"], ["watch"], ["watch", "--json"], ["translate", "--align"]],
)
def test_no_letter_turns_the_terminal_around(command, run):
    hostile = "Write \u202e a \u2066 poem \x9b31m"
    status, out, _ = run(command[0], hostile, *command[1:])
    assert status == 0
    assert not {"\u202e", "\u2066", "\x9b"} & set(out)
    assert to_json({"a": hostile}).count("\\u") == 3


# Compiled code


@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", ["halved", "emptied"])
def test_damaged_compiled_code_is_made_anew(damage, ending, tmp_path, monkeypatch):
    pytest.importorskip("numba")
    from numba.core import caching

    monkeypatch.setattr(caching.config, "CACHE_DIR", str(tmp_path / "cache"))
    module = tmp_path / "small.py"
    module.write_text(
        "from numba import njit\nfrom pellucid.attention.numba_cache import kept\n"
        "@kept\n@njit(nogil=True)\ndef twice(x):\n    return 2 * x\n"
    )

    def ran():
        """What a new process does: a function that has compiled nothing yet."""
        twice = runpy.run_path(str(module))["twice"]
        return twice(7), sum(twice.stats.cache_hits.values())

    assert ran() == (14, 0)
    assert ran() == (14, 1)
    [file] = (tmp_path / "cache").rglob(f"*{ending}")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage == "halved" else b"")
    with pytest.warns(RuntimeWarning, match="is damaged, and is compiled again: "):
        assert ran() == (14, 0)
    assert ran() == (14, 1)


def test_compiled_code_that_cannot_be_kept_still_runs(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    from numba import njit
    from numba.core import caching

    from pellucid.attention.numba_cache import kept

    monkeypatch.setattr(caching.config, "CACHE_DIR", str(tmp_path))
    thrice = kept(njit(lambda x: 3 * x))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    with pytest.warns(RuntimeWarning, match="cannot be saved.*: No space left on device"):
        assert thrice(7) == 21

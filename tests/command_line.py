"""Commands run in this process, as a user runs them."""

import io
import sys

import pytest

from pellucid import cli


@pytest.fixture
def run(monkeypatch, capfd):
    """Run a command; gives the status, what it printed and what it complained of."""

    def command(*arguments, stdin=b"", width=80):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "argv", ["pellucid", *map(str, arguments)])
        piped = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
        capfd.readouterr()  # what making a checkpoint printed
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capfd.readouterr()

    return command


@pytest.fixture
def refused(run):
    """Run a command that must fail; gives its one line."""

    def command(*arguments, **options):
        status, out, err = run(*arguments, **options)
        assert (status, out) == (2, "")
        assert err.startswith("pellucid: ")
        assert err.count("\n") == 1
        return err.removeprefix("pellucid: ").strip()

    return command


def options_of(help_text):
    """The long options that a --help names."""
    return {word for word in help_text.split() if word.startswith("--") and len(word) > 2}

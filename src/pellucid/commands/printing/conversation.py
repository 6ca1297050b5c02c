"""A conversation at the terminal, or with lines that are piped in."""

import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from pellucid.commands.printing import generation
from pellucid.commands.printing.console import note, noted, steps
from pellucid.commands.shared import plain_console
from pellucid.common.files import is_blank, printable
from pellucid.common.interrupts import interruptible
from pellucid.common.untrusted import MOST_LINE
from pellucid.errors import ArgumentError, PellucidError
from pellucid.tasks.compiling import compilation_named, compiling_in_background
from pellucid.tasks.conversation import Conversation
from pellucid.tasks.generated_text import Piece

HELP = """\
/look    show what each word of the last reply attended to
/clear   begin a new conversation
/quit    leave, as Ctrl-D does
Ctrl-C   end a reply early"""


def run(talk: Conversation, **options: Any) -> None:
    """Answer lines until there are no more, or /quit.

    Args:
        talk: the conversation.
        options: of `Conversation.reply`.

    Raises:
        ArgumentError: a line that was piped in cannot be answered.
    """
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if is_terminal:
        note("each line is a message; /help lists commands, Ctrl-D leaves")
    for line in _lines(is_terminal):
        word = line.strip()
        if is_blank(word):
            continue
        if word == "/quit":
            return
        if word == "/clear":
            talk.clear()
            note("a new conversation begins")
        elif word == "/help":
            print(HELP)
        elif word == "/look":
            _look(talk)
        elif word.startswith("/"):
            note(f"there is no command {printable(word.split()[0])}; /help lists them")
        else:
            try:
                _print_reply(talk, line, options)
            except PellucidError as error:  # such as a conversation that is too long
                if not is_terminal:
                    raise
                note(f"{error}; /clear begins a new conversation")


def _lines(is_terminal: bool) -> Iterator[str]:
    """Lines of standard input, until it ends or Ctrl-C is pressed while it waits."""
    while sys.stdin is not None:
        try:
            if is_terminal:
                print("> ", end="", flush=True)
            line = sys.stdin.readline(MOST_LINE)
        except KeyboardInterrupt:
            print()
            return
        except UnicodeDecodeError as error:
            raise ArgumentError("standard input is not UTF-8") from error
        if not line:
            if is_terminal:
                print()
            return
        yield line.rstrip("\n")


def _print_reply(talk: Conversation, message: str, options: dict[str, Any]) -> None:
    """Print the reply to a message as it is generated; Ctrl-C ends it."""
    with noted([]):
        pieces = talk.reply(message, **options)
    with compiling_in_background(), steps() as step, compilation_named(step):
        begun = list(islice(pieces, 2))  # what compiles is said before any text is shown
    with compiling_in_background(), interruptible() as interrupted:
        for piece in chain(begun, pieces):
            sys.stdout.write(printable(piece.text))
            sys.stdout.flush()
            if interrupted():
                pieces.close()  # type: ignore[attr-defined]  # a generator
                break
    print()
    _say_ending(piece, interrupted())


def _say_ending(last: Piece, is_interrupted: bool) -> None:
    if is_interrupted:
        note("the reply was interrupted; what it says so far stays in the conversation")
    elif last.done is not None and last.done.stopped == "max_tokens":
        note("the reply ended at --max-tokens")
    elif last.done is not None and last.done.stopped == "positions":
        note("the reply ended at the model's last position; /clear begins a new conversation")


def _look(talk: Conversation) -> None:
    if talk.last is None:
        note("there is no reply to look at yet")
        return
    text = generation.Text(1, talk.messages[-2]["content"], 0, done=talk.last, ids=talk.last.ids)
    generation.show(talk.model, generation.Written([text], {}), plain_console())

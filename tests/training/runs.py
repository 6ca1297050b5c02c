"""Texts for `pellucid train`, a run of it that each test finds as it was when it was done, and
processes that learn.
"""

import multiprocessing
import shutil

import pytest

SMALL = ["--steps", "3", "--width", "16", "--layers", "1", "--vocabulary", "300"]
"""Options of a run of a moment."""
NOUNS = ["house", "river", "bird", "stone", "tree", "road", "light"]
WORDS = ["red", "old", "small", "green", "long"]
TEXTS = [f"the {word} {noun} by the {other}" for word in WORDS for noun in NOUNS for other in NOUNS]
IMPORTED = ["pellucid.cli", "pellucid.training.run_setup", "torch._dynamo", "sacrebleu", "numba"]
IMPORTED += ["pellucid.tasks.generation", "pellucid.tasks.translation", "pellucid.commands.inputs"]


@pytest.fixture(scope="session")
def processes():
    """Processes that have everything imported when they start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


@pytest.fixture(scope="session")
def _kept(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def done(_kept, run):
    """The directory of a run that is done, and its text. It is trained once, and then put back:
    a run knows the places and times of its files.
    """
    here, kept = _kept / "here", _kept / "kept"
    file, out = here / "text.txt", here / "model"
    shutil.rmtree(here, ignore_errors=True)
    if kept.exists():
        shutil.copytree(kept, here)
        return out, file
    here.mkdir()
    file.write_text("\n".join(TEXTS))
    options = [*SMALL, "--set", "batch_tokens=101", "--set", "save_every=2"]
    status, _, err = run("train", "decoder", file, "-o", out, *options)
    assert status == 0, err
    shutil.copytree(here, kept)
    return out, file

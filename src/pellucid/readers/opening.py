"""One door: a model that reads text, opened by whatever name it has."""

from importlib.util import find_spec
from pathlib import Path

from pellucid import pretrained
from pellucid.common.untrusted import json_in
from pellucid.errors import ArgumentError, FileError
from pellucid.models.checkpoints import is_own
from pellucid.models.checkpoints.source import directory_of, opening
from pellucid.readers.checkpoint import Checkpoint
from pellucid.readers.hugging_face import open_theirs
from pellucid.readers.own import open_own


def open_checkpoint(
    model: str | Path | None, *, whole: bool = False, writes: bool = False
) -> Checkpoint:
    """Open a model and its tokenizer, quietly, and with errors a person can act on.

    Only safetensors weights are read, and no code that a checkpoint brings along is run.

    Args:
        model: what `pellucid.load` takes: a directory, a short name or a name on the hub;
            Pellucid's decoder if None. Of any family that transformers has.
        whole: of an encoder-decoder, both; else its encoder alone.
        writes: with what tells the next token, so that it can generate. Then it is one of
            `pellucid.models` wherever these have its family.

    Raises:
        MissingExtraError: it needs what is not installed.
        FileError: there is no such model, or what is there is not one.
        ArgumentError: it reads no text.
    """
    model = str(pretrained.DECODER if model is None else model)
    directory = directory_of(model)
    with opening(model):
        said = json_in(directory, "config.json")
    if is_own(said):
        return open_own(model, directory, whole=whole)
    if writes:
        try:
            return open_own(model, directory, whole=whole)
        except (FileError, ArgumentError):  # a `Config` cannot say all that its family can
            if find_spec("transformers") is None:
                raise
    return open_theirs(model, directory, whole=whole, writes=writes)

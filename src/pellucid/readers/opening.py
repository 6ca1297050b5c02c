"""Open a model that reads text, by any name that it has."""

from importlib.util import find_spec
from pathlib import Path

from pellucid import pretrained
from pellucid.common.untrusted import check_links, json_in
from pellucid.errors import ArgumentError, FileError
from pellucid.models.checkpoints import is_own
from pellucid.models.checkpoints.lora import is_adapter
from pellucid.models.checkpoints.source import GGUF, directory_of, opening, with_base
from pellucid.readers.checkpoint import Checkpoint
from pellucid.readers.hugging_face import open_theirs
from pellucid.readers.own import open_own


def open_checkpoint(
    model: str | Path | None, *, whole: bool = False, writes: bool = False
) -> Checkpoint:
    """Open a model and its tokenizer.

    Only safetensors weights are read, and no code of a checkpoint is run.

    Args:
        model: as for `pellucid.load`, a directory, a short name or a name on the hub, of any family
            that transformers has; None is Pellucid's decoder.
        whole: open an encoder-decoder whole, not only its encoder.
        writes: open it with its language-model head, so that it can generate; as one of
            `pellucid.models` if these have its family.

    Raises:
        MissingExtraError: it needs an extra that is not installed.
        FileError: there is no such model, or its files are damaged.
        ArgumentError: it does not read text.
    """
    model = str(pretrained.DECODER if model is None else model)
    directory = directory_of(model)
    if directory.suffix == GGUF:
        return open_own(model, directory, whole=whole)
    with opening(model):
        adapts = is_adapter(directory, with_base(model)[1])
    if adapts:
        return open_own(model, directory, whole=whole)
    with opening(model):
        check_links(directory)
        config = json_in(directory, "config.json")
    if is_own(config):
        return open_own(model, directory, whole=whole)
    if writes:
        try:
            return open_own(model, directory, whole=whole)
        except (FileError, ArgumentError):  # `Config` does not cover every model of its family
            if find_spec("transformers") is None:
                raise
    return open_theirs(model, directory, whole=whole, writes=writes)

"""Where a checkpoint is: a directory here, one in the package, or one that the Hugging Face hub
gives.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pellucid import pretrained
from pellucid.common.files import reason_of
from pellucid.common.wording import short
from pellucid.errors import FileError, MissingExtraError, PellucidError, TypeMismatchError

WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.spm", "*.tiktoken", "*.bpe")
SHOWN = 80
"""Characters of a name that is none."""


def directory_of(path: str | Path) -> Path:
    """The directory of a path, a short name or a name on the hub; a directory that is there goes
    before a name, and what the hub has is fetched.

    Raises:
        FileError: there is no such directory, and the hub gives none.
        TypeMismatchError: the path is neither a str nor a Path.
        MissingExtraError: huggingface_hub, or all-MiniLM-L6-v2, is not installed.
    """
    if not isinstance(path, str | Path):
        raise TypeMismatchError(f"path must be a str or a Path, not {path!r}")
    if not str(path):
        raise FileError("path is empty; give the model's directory or its hub name")
    directory = Path(path)
    try:
        if directory.is_file():
            raise FileError(f"model '{path}' is a file; give the model's directory or its hub name")
        if directory.is_dir():
            return directory
    except FileError:
        raise
    except OSError as error:  # a name that is too long for any file, say
        name = short(str(path), SHOWN)
        raise FileError(f"model '{name}' cannot be looked for: {reason_of(error)}") from error
    if str(path) in pretrained.NAMES:
        return pretrained.directory(str(path))
    if directory.is_absolute() or str(path).startswith((".", "~")):  # no hub name looks so
        raise FileError(f"model '{path}' is no directory")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise MissingExtraError.of(
            f"model '{path}' is no directory, and the hub needs huggingface_hub", "hf"
        ) from error
    try:
        return Path(snapshot_download(str(path), allow_patterns=list(WANTED)))
    except LocalEntryNotFoundError as error:
        raise FileError(
            f"model '{path}' is no directory here, and the Hugging Face hub cannot be reached"
        ) from error
    except Exception as error:  # the hub has kinds of its own, and so has each layer beneath
        reason = " ".join(str(error).split()).split(". ")[0][:200]
        raise FileError(
            f"model '{path}' is no directory here, and the Hugging Face hub does not give it: "
            f"{reason}"
        ) from error


@contextmanager
def opening(path: str | Path) -> Iterator[None]:
    """Whatever is wrong with a checkpoint is said of the path that was given."""
    try:
        yield
    except MissingExtraError:
        raise
    except PellucidError as error:
        raise FileError(f"model '{path}' cannot be opened: {error}") from error

"""Where a checkpoint is: a directory here, or one that the Hugging Face hub gives."""

from pathlib import Path

from pellucid.common.files import reason_of
from pellucid.common.wording import short
from pellucid.errors import FileError, MissingExtraError, TypeMismatchError

WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.spm")
SHOWN = 80
"""Characters of a name that is none."""


def directory_of(path: str | Path) -> Path:
    """The directory, fetched first where it is a name on the hub.

    Raises:
        FileError: there is no such directory, and the hub gives none.
        TypeMismatchError: the path is neither a str nor a Path.
        MissingExtraError: huggingface_hub is not installed.
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
    if directory.is_absolute() or str(path).startswith((".", "~")):  # no hub name looks so
        raise FileError(f"model '{path}' is no directory")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise MissingExtraError(
            f"model '{path}' is no directory, and the hub needs: pip install 'pellucid[hf]'"
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

"""Where a checkpoint is: a directory here, or one that the Hugging Face hub gives."""

from pathlib import Path

from pellucid.errors import FileError, MissingExtraError

WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.spm")


def directory_of(path: str | Path) -> Path:
    """The directory, fetched first where it is a name on the hub.

    Raises:
        FileError: there is no such directory, and the hub gives none.
        MissingExtraError: huggingface_hub is not installed.
    """
    directory = Path(path)
    if directory.is_file():
        raise FileError(f"model '{path}' is a file; give the model's directory or its hub name")
    if directory.is_dir():
        return directory
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

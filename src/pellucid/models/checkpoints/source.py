"""The directory of a checkpoint: a local one, one in the package, or a download from the hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from pellucid import pretrained
from pellucid.common.files import reason_of
from pellucid.common.untrusted import MOST_NAMED
from pellucid.common.wording import short
from pellucid.errors import FileError, MissingExtraError, PellucidError, TypeMismatchError

GGUF = ".gguf"
ADAPTER_CONFIG = "adapter_config.json"
"""The file of an adapter of peft."""
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.spm", "*.tiktoken", "*.bpe", "*.jinja")
SHOWN = 80
"""Characters of an overlong path in an error."""


def with_base(path: str | Path) -> tuple[str | Path, str | None]:
    """A path and that of the model that its adapter changes, if it is written as ADAPTER+BASE."""
    if isinstance(path, str) and "+" in path and not Path(path).exists():
        first, _, base = path.partition("+")
        if Path(first).is_dir() and base:
            return first, base
    return path, None


def directory_of(path: str | Path) -> Path:
    """The directory of a checkpoint, given its path, its short name or its name on the hub.

    A local directory takes precedence over a name; models on the hub are downloaded. A GGUF file
    is a checkpoint of its own: its path is returned, also for a directory that has nothing else.

    Raises:
        FileError: the model is neither a local directory nor available from the hub.
        TypeMismatchError: the path is neither a str nor a Path.
        MissingExtraError: huggingface_hub, or all-MiniLM-L6-v2, is not installed.
    """
    if not isinstance(path, str | Path):
        raise TypeMismatchError(f"path must be a str or a Path, not {path!r}")
    path, _ = with_base(path)
    if not str(path):
        raise FileError("path is empty; give the model's directory or its hub name")
    directory = Path(path)
    try:
        if directory.is_file() and directory.suffix.lower() == GGUF:
            return directory
        if directory.is_file():
            raise FileError(
                f"model '{path}' is a file; give the model's directory, a {GGUF} file or a hub name"
            )
        if directory.is_dir():
            return _gguf_in(directory) or directory
    except FileError:
        raise
    except OSError as error:  # such as a name that is too long
        name = short(str(path), SHOWN)
        raise FileError(f"model '{name}' cannot be opened: {reason_of(error)}") from error
    if str(path) in pretrained.NAMES:
        own = pretrained.directory(str(path))
        return _gguf_in(own) or own
    if directory.is_absolute() or str(path).startswith((".", "~")):  # not a name on the hub
        raise FileError(f"model '{path}' is not a directory")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise MissingExtraError.of(
            f"model '{path}' is not a directory, and the hub needs huggingface_hub", "hf"
        ) from error
    near = get_close_matches(str(path), pretrained.NAMES, n=1)
    advice = f"; did you mean '{near[0]}'?" if near else ""
    try:
        return Path(snapshot_download(str(path), allow_patterns=list(WANTED)))
    except LocalEntryNotFoundError as error:
        raise FileError(
            f"model '{path}' is not a local directory, and the Hugging Face hub cannot be reached"
            f"{advice}"
        ) from error
    except Exception as error:  # the hub client and its HTTP library raise errors of many kinds
        reason = " ".join(str(error).split()).split(". ")[0][:200]
        raise FileError(
            f"model '{path}' is not a local directory, and the Hugging Face hub does not provide "
            f"it: {reason}{advice}"
        ) from error


def _gguf_in(directory: Path) -> Path | None:
    """The GGUF file of a directory that has no config.json; None if there is none.

    Raises:
        FileError: there are several, or an adapter besides.
    """
    if (directory / "config.json").exists():
        return None
    files = sorted(directory.glob(f"*{GGUF}"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:MOST_NAMED])
        raise FileError(f"model '{directory}' has several {GGUF} files; give one of them: {names}")
    if files and (directory / ADAPTER_CONFIG).exists():
        raise FileError(
            f"model '{directory}' has both a {GGUF} file and an adapter ({ADAPTER_CONFIG}), which "
            f"cannot be merged into it; give the file for the model alone: {files[0].name}"
        )
    return files[0] if files else None


@contextmanager
def opening(path: str | Path) -> Iterator[None]:
    """Name the given path in every error about the checkpoint."""
    try:
        yield
    except MissingExtraError:
        raise
    except PellucidError as error:
        raise FileError(f"model '{path}' cannot be opened: {error}") from error

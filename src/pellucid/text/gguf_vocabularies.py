"""Tokenizers from the metadata of GGUF files.

gpt2     byte-level BPE, whose kind says how text is split before (`tokenizer.ggml.pre`)
llama    SentencePiece's BPE, with the score of each piece
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.common.untrusted import whole
from pellucid.common.wording import short
from pellucid.errors import FileError
from pellucid.text.sentence_pieces import pieces_of_bytes
from pellucid.text.tokenizer import Tokenizer

KEY = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
NAMED = {
    **{name: name for name in ("bos", "eos", "cls", "mask")},
    **{"unk": "unknown", "pad": "padding", "sep": "seperator"},  # as llama.cpp spells it
}
"""Names of special tokens in chat templates, and in the metadata."""
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
"""Types of tokens."""
ENDS = (
    *("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|calls|>"),
    *("<|flush|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>", "<eos>"),
    *("<end_of_utterance>", "<｜end▁of▁sentence｜>", "<|fim_pad|>", "<fim-pad>", "<fim_pad>"),
    *("<PAD>", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "<|file_sep|>",
)
"""Control tokens that end a text for llama.cpp, whatever the metadata say."""

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LINES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_EXPRESSIONS: dict[str, tuple[str, ...]] = {
    "gpt-2 default phi-2 jina-es jina-de roberta-bpe mpt olmo jais trillion granite-docling": (
        _WORDS,
    ),
    "smollm starcoder refact command-r codeshell exaone minerva-7b": (r"\p{N}", _WORDS),
    "llama-bpe llama3 llama-v3 smaug-bpe dbrx falcon3 pixtral lfm2": (_LINES % "{1,3}",),
    "qwen2 deepseek-r1-qwen stablelm2 hunyuan megrez mellum": (_LINES % "",),
    "gpt-4o llama4": (_TEKKEN % (_ENDINGS, _ENDINGS, "{1,3}"),),
    "tekken": (_TEKKEN % ("", "", ""),),
}
SPLITS = {name: parts for names, parts in _EXPRESSIONS.items() for name in names.split()}
"""Each kind of byte-level BPE: the expressions by which text is split, one after another."""


def of_metadata(metadata: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer that a file's metadata describe; None if it has none.

    Raises:
        FileError: it is of a kind that is not supported.
        TypeError, ValueError: the metadata have a value that does not fit.
    """
    kind = metadata.get(f"{KEY}model", "none")
    if kind in ("none", "no_vocab"):
        return None
    if kind not in ("gpt2", "llama"):
        raise FileError(f"its tokenizer is of kind {kind!r:.40}; known kinds are gpt2 and llama")
    tokens = metadata.get(f"{KEY}tokens")
    if not isinstance(tokens, list) or not tokens:
        raise FileError("its tokenizer has no tokens")
    types = metadata.get(f"{KEY}token_type")
    kinds = [NORMAL] * len(tokens) if types is None else [int(number) for number in types]
    if len(kinds) != len(tokens):
        raise FileError(f"its tokenizer has {len(tokens):,} tokens, but types of {len(kinds):,}")
    ids = _unequal(tokens)
    inner = (_bytes if kind == "gpt2" else _pieces)(metadata, ids, kinds)
    _add_marks(inner, tokens, kinds)
    _add_ends(inner, metadata, tokens, kind)
    tokenizer = Tokenizer(inner)
    template = metadata.get(TEMPLATE)
    tokenizer.chat_template = template if isinstance(template, str) else None
    others = (
        key.removeprefix(f"{TEMPLATE}.") for key in metadata if key.startswith(f"{TEMPLATE}.")
    )
    tokenizer.other_templates = tuple(sorted(others))
    for name, theirs in NAMED.items():
        number = metadata.get(f"{KEY}{theirs}_token_id")
        if isinstance(number, int) and number < len(tokens):
            tokenizer.named_tokens[f"{name}_token"] = tokens[number]
    return tokenizer


def ends_of(metadata: Mapping[str, Any]) -> list[int]:
    """The ids that end a text."""
    named = (metadata.get(f"{KEY}{name}_token_id") for name in ("eos", "eot", "eom"))
    ids = [number for number in named if isinstance(number, int)]
    types = metadata.get(f"{KEY}token_type", ())
    ids += [
        number
        for number, (token, kind) in enumerate(
            zip(metadata.get(f"{KEY}tokens", ()), types, strict=False)
        )
        if kind in (CONTROL, USER) and token in ENDS
    ]
    return list(dict.fromkeys(ids))


def _unequal(tokens: Sequence[str]) -> dict[str, int]:
    ids = {token: number for number, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        same = next(token for number, token in enumerate(tokens) if ids[token] != number)
        raise FileError(f"its tokenizer has the token {short(same, 40)!r} twice")
    return ids


def _bytes(metadata: Mapping[str, Any], ids: dict[str, int], kinds: Sequence[int]) -> Any:
    """A `tokenizers.Tokenizer` of byte-level BPE."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    name = metadata.get(f"{KEY}pre", "default")
    if name not in SPLITS:
        known = ", ".join(SPLITS)
        raise FileError(f"its tokenizer splits text as {name!r:.40} does; known ways are {known}")
    merges = [tuple(merge.split(" ")) for merge in metadata.get(f"{KEY}merges", ())]
    if any(len(merge) != 2 for merge in merges):
        raise FileError("its tokenizer has a merge that is not a pair of tokens")
    # In Llama 3, a word that is a token needs no merges.
    is_whole = SPLITS[name] == SPLITS["llama-bpe"] or name == "tekken"
    inner = Tokenizer(models.BPE(ids, merges, ignore_merges=is_whole))
    splits = [pre_tokenizers.Split(Regex(part), "isolated") for part in SPLITS[name]]
    space = bool(metadata.get(f"{KEY}add_space_prefix", False))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    return inner


def _pieces(metadata: Mapping[str, Any], ids: dict[str, int], kinds: Sequence[int]) -> Any:
    """A `tokenizers.Tokenizer` of SentencePiece's BPE."""
    scores = metadata.get(f"{KEY}scores")
    if scores is None or len(scores) != len(ids):
        raise FileError("its tokenizer has no score for each token")
    mergeable = {token for token, kind in zip(ids, kinds, strict=True) if kind in (NORMAL, USER)}
    order = sorted(mergeable, key=lambda token: -scores[ids[token]])
    unknown = next((token for token, kind in zip(ids, kinds, strict=True) if kind == UNKNOWN), None)
    prefix = bool(metadata.get(f"{KEY}add_space_prefix", True))
    return pieces_of_bytes(ids, order, unknown, prefix)


def _add_marks(inner: Any, tokens: Sequence[str], kinds: Sequence[int]) -> None:
    """Tell special tokens, and others that are never split, from text."""
    from tokenizers import AddedToken

    for special, which in ((True, (CONTROL, UNKNOWN)), (False, (USER,))):
        added = [
            AddedToken(token, special=special, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in which and token
        ]
        (inner.add_special_tokens if special else inner.add_tokens)(added)


def _add_ends(inner: Any, metadata: Mapping[str, Any], tokens: Sequence[str], kind: str) -> None:
    """Put the special tokens around a text that llama.cpp puts there."""
    from tokenizers import processors

    first = kind == "llama" or metadata.get(f"{KEY}pre") in ("llama-bpe", "llama3", "tekken")
    parts, marks = ["$A"], []
    for name, default, at in (("bos", first, 0), ("eos", False, 2)):
        number = metadata.get(f"{KEY}{name}_token_id")
        if metadata.get(f"{KEY}add_{name}_token", default) and number is not None:
            number = whole(number, f"{name}_token_id", 0, len(tokens) - 1)
            marks.append((tokens[number], number))
            parts.insert(at, tokens[number])
    if marks:
        inner.post_processor = processors.TemplateProcessing(single=parts, special_tokens=marks)

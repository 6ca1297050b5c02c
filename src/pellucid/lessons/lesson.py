"""A lesson: everything that its numbers are computed from, so that any of it can be changed.

`steps.walk_lesson` works out all that follows. A lesson is a JSON object too, with the fields of
`Lesson` as its keys: what the page shares in its address and `pellucid explain --from` reads.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pellucid.common import files, untrusted
from pellucid.common.wording import count
from pellucid.errors import ArgumentError, FileError, PellucidError, ShapeError, TooLargeError

Rows = tuple[tuple[float, ...], ...]
"""A matrix, row by row."""
Energy = Literal["dot product", "cosine", "bilinear", "additive"]
MaskRule = Literal["none", "causal", "window"]
Form = Literal["parameters", "linear"]

MOST_TOKENS = 64
MOST_NUMBERS = 2**16
"""Of one matrix."""
MATRICES = (
    "embeddings",
    "positions",
    "source_embeddings",
    "W_query",
    "W_key",
    "W_value",
    "W_output",
    "query",
    "key",
    "value",
    "W_energy",
    "v_energy",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One attention layer on a few tokens; every field can be changed.

    Either `embeddings` and the three projections are given, or `query`, `key` and `value`.
    """

    tokens: tuple[str, ...]
    """The tokens that attend."""
    source: tuple[str, ...] | None = None
    """The tokens attended to, in cross-attention; None in self-attention."""
    title: str = ""
    about: tuple[str, ...] = ()
    """Where the numbers come from, a line each."""
    speaker: int = 0
    """The token that the sentences are about."""

    embeddings: Rows | None = None
    """(tokens, width): a row of the embedding table for each token."""
    positions: Rows | None = None
    """(tokens, width): position embeddings, which are added; None adds none."""
    source_embeddings: Rows | None = None
    """(source, width)."""
    W_query: Rows | None = None
    """(width, heads * key_dim)."""
    W_key: Rows | None = None
    """(width, heads * key_dim)."""
    W_value: Rows | None = None
    """(width, heads * value_dim)."""
    W_output: Rows | None = None
    """(heads * value_dim, out): mixes the concatenated heads; None leaves them as they are."""
    heads: int = 1

    query: Rows | None = None
    """(tokens, key_dim), in place of embeddings and projections."""
    key: Rows | None = None
    """(source or tokens, key_dim)."""
    value: Rows | None = None
    """(source or tokens, value_dim)."""

    energy: Energy = "dot product"
    """How a query and a key are compared (`pellucid.energies`)."""
    W_energy: Rows | None = None
    """(key_dim, key_dim) for "bilinear"; (2 * key_dim, hidden) for "additive", query part first."""
    v_energy: Rows | None = None
    """(1, hidden), for "additive"."""
    scale: float | None = None
    """A factor on the scores; 1/√key_dim for dot products, and 1 for other energies, if None."""
    temperature: float = 1.0
    """The softmax divides by it."""
    mask: MaskRule | Rows = "none"
    """A rule, or M itself, (tokens, keys): 0, -inf or any number that is added to the scores."""
    window: int = 3
    """How many keys a token sees under the rule "window", itself included."""
    mask_before_scale: bool = False
    """(QKᵀ + M) · scale in place of QKᵀ · scale + M."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def keys(self) -> tuple[str, ...]:
        """The tokens attended to."""
        return self.tokens if self.source is None else self.source

    @property
    def is_projected(self) -> bool:
        """Whether queries, keys and values are made from embeddings."""
        return self.embeddings is not None

    def matrix(self, name: str) -> Tensor:
        """One of the matrices, in float64."""
        rows = getattr(self, name)
        assert rows is not None, name
        return torch.tensor(rows, dtype=torch.float64)

    @classmethod
    def of(cls, **given: Any) -> "Lesson":
        """A lesson; tensors may stand for rows."""
        return cls(**{name: _rows(value) for name, value in given.items()})

    def change(self, **given: Any) -> "Lesson":
        """The same lesson with other fields; tensors may stand for rows."""
        return replace(self, **{name: _rows(value) for name, value in given.items()})

    def to_json(self) -> str:
        """The lesson as JSON; what is as usual is left out. −∞ is written as null."""
        usual = {field.name: field.default for field in fields(self)}
        given = {name: value for name, value in asdict(self).items() if value != usual[name]}
        return files.to_json(given, indent=1)


def from_tensors(
    query: Any, key: Any, value: Any, *, tokens: Sequence[str] | None = None, **more: Any
) -> Lesson:
    """A lesson of one's own vectors: tensors, arrays, or lists of lists of numbers.

    Args:
        query: (tokens, key_dim).
        key: (keys, key_dim).
        value: (keys, value_dim).
        tokens: a label for each query; numbered unless given.
        more: any other field of `Lesson`.
    """
    query, key, value = (
        _vectors(name, given) for name, given in (("query", query), ("key", key), ("value", value))
    )
    if unknown := more.keys() - {field.name for field in fields(Lesson)}:
        raise ArgumentError(f"'{min(unknown)}' is not a field of a lesson")
    tokens = tokens or [f"token {i}" for i in range(len(query))]
    if "source" not in more and len(key) != len(query):
        more["source"] = tuple(f"key {i}" for i in range(len(key)))
    return Lesson.of(tokens=tuple(tokens), query=query, key=key, value=value, **more)


def random_lesson(
    words: str,
    *,
    source: str | None = None,
    width: int = 4,
    size: int = 2,
    heads: int = 1,
    seed: int = 0,
    form: Form = "parameters",
    positions: bool = True,
) -> Lesson:
    """A lesson on one's own words, with embeddings and weights drawn by a seed.

    Args:
        words: the tokens, between spaces.
        source: the tokens attended to, for cross-attention.
        width: numbers of an embedding.
        size: numbers of a query, key and value of one head.
        heads: how many heads; more than one get a W_output.
        seed: of PyTorch's generator.
        form: weights as bare parameters from torch.rand, or as torch.nn.Linear makes them.
        positions: whether position embeddings are added.
    """
    tokens, keys = tuple(words.split()), None if source is None else tuple(source.split())
    if not tokens or keys == ():
        raise ArgumentError('words are missing; give some, like "write a poem"')
    for name, number in (("width", width), ("size", size), ("heads", heads)):
        if not 1 <= number <= MOST_TOKENS:
            raise ArgumentError(f"{name} must be from 1 to {MOST_TOKENS}, not {number}")
    # A word has one row of the table, wherever it stands.
    table = {word: number for number, word in enumerate(dict.fromkeys((*tokens, *(keys or ()))))}
    longest = max(len(tokens), len(keys or ()))
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(seed)
        vocabulary = torch.randn(len(table), width)
        position_vectors = torch.randn(longest, width) / 2
        out = heads * size
        if form == "linear":
            weights = [torch.nn.Linear(width, out, bias=False).weight.T for _ in range(3)]
        else:
            weights = [torch.rand(width, out) for _ in range(3)]
        W_output = torch.rand(out, width) if heads > 1 else None
    how = "torch.nn.Linear" if form == "linear" else "torch.rand"
    of_keys = None
    if keys is not None:
        of_keys = vocabulary[[table[word] for word in keys]]
        if positions:
            of_keys = of_keys + position_vectors[: len(keys)]
    return Lesson.of(
        tokens=tokens,
        source=keys,
        title=" ".join(tokens),
        about=(f"Embeddings by torch.randn, weights by {how}; seed {seed}.",),
        embeddings=vocabulary[[table[word] for word in tokens]],
        positions=position_vectors[: len(tokens)] if positions else None,
        source_embeddings=of_keys,
        **dict(zip(("W_query", "W_key", "W_value"), weights, strict=True)),
        W_output=W_output,
        heads=heads,
    )


def read_lesson(path: Path) -> Lesson:
    """The lesson of a JSON file.

    Raises:
        FileError: it cannot be read, or is not a lesson; the message names the field.
    """
    with untrusted.guarded(f"cannot read '{path}'"):
        try:
            document = untrusted.read_json(path)
        except (ValueError, RecursionError) as error:
            if isinstance(error, PellucidError):
                raise
            raise FileError(f"'{path}' is not JSON: {untrusted.short_reason(error)}") from None
    try:
        return from_json(document)
    except PellucidError as error:
        raise FileError(f"'{path}' is not a lesson: {error}") from None


def from_json(given: Any) -> Lesson:
    """A lesson from what JSON gives; null in a mask is −∞.

    Raises:
        ArgumentError: an unknown key, or a value of another type.
        ShapeError: matrices that do not fit one another.
    """
    if not isinstance(given, dict):
        raise ArgumentError("a lesson is a JSON object with 'tokens' and matrices")
    names = {field.name for field in fields(Lesson)}
    for name in given:
        if name not in names:
            near = get_close_matches(str(name), names, 1)
            meant = f"; did you mean '{near[0]}'?" if near else f": {', '.join(sorted(names))}"
            raise ArgumentError(f"'{str(name)[:40]}' is not a field of a lesson{meant}")
    if "tokens" not in given:
        raise ArgumentError("tokens are missing")
    try:
        return Lesson(**{name: _typed(name, value) for name, value in given.items()})
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, PellucidError):
            raise
        raise ArgumentError(str(error)) from None


def _typed(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in ("tokens", "source", "about"):
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise ArgumentError(f"{name} must be a list of texts")
        return tuple(files.printable(entry) for entry in value)
    if name in MATRICES or (name == "mask" and not isinstance(value, str)):
        return _matrix(name, value)
    if name in ("title", "energy", "mask"):
        return files.printable(untrusted.text(value, name))
    if name == "mask_before_scale":
        return untrusted.flag(value, name)
    if name in ("speaker", "heads", "window"):
        return untrusted.whole(value, name)
    return untrusted.finite(value, name)


def _matrix(name: str, value: Any) -> Rows:
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise ArgumentError(f"{name} must be a list of rows, a list of numbers each")
    if len(value) * max((len(row) for row in value), default=0) > MOST_NUMBERS:
        raise TooLargeError(f"{name} has more than {MOST_NUMBERS} numbers")
    hidden = name == "mask"
    return tuple(
        tuple(
            -math.inf if hidden and number is None else untrusted.finite(number, name)
            for number in row
        )
        for row in value
    )


def _vectors(name: str, given: Any) -> Tensor:
    """(tokens, dim), of whatever torch takes for a tensor."""
    try:
        tensor = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(f"{name} must be rows of numbers, one length each: {error}") from None
    if tensor.ndim != 2:
        raise ShapeError(f"{name} must have the shape (tokens, dim), got {tuple(tensor.shape)}")
    return tensor


def _rows(value: Any) -> Any:
    """A matrix as rows; anything else as it is.

    A number of float32 becomes the shortest decimal that float32 tells from all others, so that
    1.36 is 1.36 in a file and in an address, and not 1.3600000143051147.
    """
    if not isinstance(value, Tensor):
        return value
    array = value.detach().cpu()
    if array.dtype == torch.float32:
        array = torch.from_numpy(array.numpy().astype(str).astype(float))
    return tuple(map(tuple, array.double().tolist()))


def _check(lesson: Lesson) -> None:
    queries, keys = len(lesson.tokens), len(lesson.keys)
    for name, size in (("tokens", queries), ("source", keys)):
        if not 1 <= size <= MOST_TOKENS:
            raise ArgumentError(f"a lesson has 1 to {MOST_TOKENS} {name}, not {size}")
    if not 0 <= lesson.speaker < queries:
        raise ArgumentError(f"speaker must be from 0 to {queries - 1}, not {lesson.speaker}")
    if lesson.energy not in get_args(Energy):
        raise ArgumentError(
            f"energy must be one of {', '.join(get_args(Energy))}, not '{lesson.energy}'"
        )
    if isinstance(lesson.mask, str) and lesson.mask not in get_args(MaskRule):
        raise ArgumentError(
            f"mask must be one of {', '.join(get_args(MaskRule))}, or a matrix; not '{lesson.mask}'"
        )
    if lesson.window < 1:
        raise ArgumentError(f"window must be at least 1, not {lesson.window}")
    for name, number in (("scale", lesson.scale), ("temperature", lesson.temperature)):
        if number is not None and not 1e-6 <= number <= 1e6:
            raise ArgumentError(f"{name} must be from 1e-6 to 1e6, not {number:g}")
    if lesson.is_projected == (lesson.query is not None):
        raise ArgumentError("a lesson has either embeddings or query, key and value")
    if lesson.source is not None and lesson.mask in ("causal", "window"):
        raise ArgumentError(f"the mask '{lesson.mask}' has no meaning in cross-attention")
    if lesson.is_projected:
        _check_projected(lesson, queries, keys)
    else:
        _check_given(lesson, queries, keys)
    if not isinstance(lesson.mask, str):
        _sized(lesson, "mask", queries, keys)


def _check_projected(lesson: Lesson, queries: int, keys: int) -> None:
    width = _sized(lesson, "embeddings", queries)[1]
    if lesson.positions is not None:
        _sized(lesson, "positions", queries, width)
    if (lesson.source is None) != (lesson.source_embeddings is None):
        raise ArgumentError("source and source_embeddings go together")
    of_keys = width if lesson.source is None else _sized(lesson, "source_embeddings", keys)[1]
    _, of_query = _sized(lesson, "W_query", width)
    _sized(lesson, "W_key", of_keys, of_query)
    _, of_value = _sized(lesson, "W_value", of_keys)
    for name, size in (("W_query", of_query), ("W_value", of_value)):
        if lesson.heads < 1 or size % lesson.heads:
            raise ShapeError(
                f"{name} has {count(size, 'column')}, which {lesson.heads} heads cannot share"
            )
    if lesson.W_output is not None:
        _sized(lesson, "W_output", of_value)
    _check_energy(lesson, of_query // lesson.heads)


def _check_given(lesson: Lesson, queries: int, keys: int) -> None:
    key_dim = _sized(lesson, "query", queries)[1]
    _sized(lesson, "key", keys, key_dim)
    _sized(lesson, "value", keys)
    for name in ("positions", "source_embeddings", "W_query", "W_key", "W_value", "W_output"):
        if getattr(lesson, name) is not None:
            raise ArgumentError(f"{name} goes with embeddings, not with query, key and value")
    if lesson.heads != 1:
        raise ArgumentError("heads go with embeddings, not with query, key and value")
    _check_energy(lesson, key_dim)


def _check_energy(lesson: Lesson, key_dim: int) -> None:
    if lesson.energy == "bilinear":
        _sized(lesson, "W_energy", key_dim, key_dim)
    elif lesson.energy == "additive":
        _, hidden = _sized(lesson, "W_energy", 2 * key_dim)
        _sized(lesson, "v_energy", 1, hidden)


def _sized(lesson: Lesson, name: str, rows: int, columns: int | None = None) -> tuple[int, int]:
    """The shape of a matrix, which must have so many rows, and columns if they are given."""
    matrix = getattr(lesson, name)
    if not matrix or not matrix[0]:
        raise ArgumentError(f"{name} is missing")
    width = len(matrix[0]) if columns is None else columns
    if len(matrix) != rows or any(len(row) != width for row in matrix):
        came = " and ".join(str(size) for size in sorted({len(row) for row in matrix}))
        if columns is None:
            wanted, given = f"{count(rows, 'row')} of one length", f"{len(matrix)} of {came}"
        else:
            wanted, given = f"the shape ({rows}, {columns})", f"({len(matrix)}, {came})"
        raise ShapeError(f"{name} must have {wanted}, not {given}")
    return rows, width

"""The heads of a model over a corpus: means over documents, and the documents that differ.

The outputs of `MeasureHeads` are read twice, a row group at a time: once for means and standard
deviations, once for the documents farthest from them. Memory depends on the number of heads alone.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.corpora.writing import PARTS, RUN
from pellucid.errors import FileError, MissingExtraError
from pellucid.lens.head_table import SHARES
from pellucid.text.utf8_files import pyarrow_for

MEASURES = ("entropy", "distance", *SHARES)
LATER = ("special",)
"""Measures that older runs do not have."""
CONFIDENCE = 0.95
UNLIKE = 10
"""How many documents are named in which a head is most unlike itself."""
FEWEST = 8
"""Documents of a head without which none is called unlike the others."""

Key = tuple[str, str, int, int]
"""Stack, module name, layer and head."""


@dataclass(slots=True)
class Moments:
    """Mean and variance of numbers that come one group after another (Chan et al. 1983)."""

    number: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """The sum of squared differences from the mean."""

    def add(self, values: "np.ndarray[Any, Any]") -> None:
        if not len(values):
            return
        number, mean = self.number + len(values), float(values.mean())
        delta = mean - self.mean
        self.squares += float(((values - mean) ** 2).sum())
        self.squares += delta * delta * self.number * len(values) / number
        self.mean += delta * len(values) / number
        self.number = number

    @property
    def deviation(self) -> float:
        """The sample's standard deviation; NaN for fewer than two values."""
        return math.sqrt(self.squares / (self.number - 1)) if self.number > 1 else math.nan

    @property
    def half_width(self) -> float:
        """Half of the 95% confidence interval of the mean over documents (Student 1908)."""
        if self.number < 2:
            return math.nan
        quantile = _student().ppf((1 + CONFIDENCE) / 2, self.number - 1)
        return float(quantile) * self.deviation / math.sqrt(self.number)


def _student() -> Any:
    try:
        from scipy.stats import t
    except ImportError as error:  # scikit-learn brings it
        raise MissingExtraError.of("confidence intervals need scipy", "tasks") from error
    return t


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSummary:
    """One head over all documents."""

    layer: int
    head: int
    name: str
    stack: str
    documents: int
    roles: dict[str, float]
    """The share of documents in which it has each role, the largest first; "" is none."""
    measures: dict[str, Moments]
    """By the columns of `pellucid.lens.heads`; number 0 where a measure is never defined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlike:
    """A document in which a head is unlike itself."""

    layer: int
    head: int
    stack: str
    measure: str
    file: str
    line: int
    value: float
    mean: float
    deviations: float
    """How many standard deviations of the documents the value is from the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusHeads:
    """All heads over a corpus."""

    documents: int
    tokens: int
    heads: list[HeadSummary]
    unlike: list[Unlike] = field(default_factory=list)
    """The most unlike first, one measure of a head and document each."""


def summarise_heads(output: str | Path, *, most: int = UNLIKE) -> CorpusHeads:
    """Merge what `MeasureHeads` wrote.

    Each document counts once, however long it is: the interval is that of the mean over documents
    like these.

    Args:
        output: the directory of a run.
        most: how many documents to name in which a head is most unlike itself.

    Raises:
        FileError: it is not the directory of such a run, or has no parts yet.
        MissingExtraError: pyarrow or scipy is not installed.
    """
    output = Path(output)
    moments: dict[Key, dict[str, Moments]] = {}
    roles: dict[Key, Counter[str]] = {}
    tokens = 0
    for key, rows in _groups(output):
        own = moments.setdefault(key, {name: Moments() for name in MEASURES})
        for name, moment in own.items():
            moment.add(_defined(rows[name])[1])
        roles.setdefault(key, Counter()).update(rows["role"])
        if key == next(iter(moments)):  # each document has each head once
            tokens += int(rows["tokens"].sum())
    if not moments:
        raise FileError(f"'{output}' has no documents whose heads were measured")
    summaries = []
    for key in sorted(moments, key=lambda key: (key[0], key[2], key[1], key[3])):
        stack, name, layer, head = key
        number = roles[key].total()
        shares = {role: times / number for role, times in roles[key].most_common()}
        summaries.append(
            HeadSummary(
                layer=layer,
                head=head,
                name=name,
                stack=stack,
                documents=number,
                roles=shares,
                measures=moments[key],
            )
        )
    return CorpusHeads(
        documents=max(summary.documents for summary in summaries),
        tokens=tokens,
        heads=summaries,
        unlike=_unlike(output, moments, most),
    )


def _unlike(output: Path, moments: dict[Key, dict[str, Moments]], most: int) -> list[Unlike]:
    """The values farthest from their means, in standard deviations."""
    heap: list[tuple[float, int, Unlike]] = []
    order = 0
    for key, rows in _groups(output):
        for name, moment in moments[key].items():
            if moment.number < FEWEST or not moment.deviation > 0:
                continue
            positions, values = _defined(rows[name])
            away = np.abs(values - moment.mean) / moment.deviation
            for best in np.argsort(-away, kind="stable")[:most]:
                if len(heap) == most and away[best] <= heap[0][0]:
                    break
                position = int(positions[best])
                unlike = Unlike(
                    layer=key[2],
                    head=key[3],
                    stack=key[0],
                    measure=name,
                    file=str(rows["file"][position]),
                    line=int(rows["line"][position]),
                    value=float(values[best]),
                    mean=moment.mean,
                    deviations=float(away[best]),
                )
                order -= 1  # of equal ones the first stays
                (heapq.heappush if len(heap) < most else heapq.heappushpop)(
                    heap, (unlike.deviations, order, unlike)
                )
    return [unlike for _, _, unlike in sorted(heap, reverse=True)]


def _defined(
    values: "np.ndarray[Any, Any]",
) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """Where a measure is defined, and its values there."""
    positions = np.flatnonzero(~np.isnan(values))
    return positions, values[positions]


def _groups(output: Path) -> Iterator[tuple[Key, dict[str, "np.ndarray[Any, Any]"]]]:
    """The rows of each head in each row group of the parts, in the order of their names."""
    parquet = pyarrow_for("Parquet").parquet
    parts = sorted((output / PARTS).glob("*.parquet")) if (output / RUN).is_file() else []
    if not parts:
        raise FileError(f"'{output}' is not a run over a corpus with parts that are done")
    columns = ["file", "line", "tokens", "stack", "name", "layer", "head", "role", *MEASURES]
    for part in parts:
        with parquet.ParquetFile(part) as file:
            missing = set(columns) - set(file.schema_arrow.names)
            if missing - set(LATER):
                raise FileError(f"'{output}' is not a run of heads: it has no {min(missing)}")
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, [x for x in columns if x not in missing])
                rows = {name: table[name].to_numpy() for name in table.column_names}
                rows |= {name: np.full(len(table), np.nan) for name in missing}
                keys = list(
                    zip(rows["stack"], rows["name"], rows["layer"], rows["head"], strict=True)
                )
                order: dict[Key, list[int]] = {}
                for row, key in enumerate(keys):
                    order.setdefault(key, []).append(row)
                for key, own in order.items():
                    yield (
                        (str(key[0]), str(key[1]), int(key[2]), int(key[3])),
                        {name: values[own] for name, values in rows.items()},
                    )

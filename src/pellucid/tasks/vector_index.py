"""Many saved embeddings searched by an inverted file: only the cells nearest to the query are read.

Below `MOST_EXACT` embeddings, and wherever faiss is not installed, every embedding is compared: a
scan of a million takes a fraction of a second, and misses nothing. Above, faiss (Douze et al. 2024,
"The Faiss library") keeps them by cells of a k-means (`IndexIVFFlat`; Jégou et al. 2011, "Product
quantization for nearest neighbor search", section IV.A). Scores are exact; what may be missed is a
near text in a cell that was not read.

faiss rather than usearch or hnswlib, whose graphs take about twenty times as long to build, and a
command that starts anew for each query does not earn that back; hnswlib has had no release since
2023. The index is kept in the user's cache, and is never read from beside somebody's vectors: faiss
trusts the files that it reads. While it is made, it is held in memory.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from pellucid.common.files import written_whole
from pellucid.tasks.saved_vectors import Saved
from pellucid.tasks.similarity import Match, lengths_of, tell_left_out

MOST_EXACT = 2**21
"""Embeddings that are all compared: 3.2 GB of 384 numbers each."""
TRAINED_ON = 64
"""Embeddings per cell from which the cells are learnt."""
READ = 32
"""One in so many cells is read, but no fewer than eight."""
_ADDED = 2**16


def has_index(saved: Saved) -> bool:
    """Whether embeddings are so many that an index is used, and faiss is installed."""
    return len(saved.vectors) > MOST_EXACT and find_spec("faiss") is not None


def nearest_cells(
    query: Tensor, saved: Saved, top: int, progress: Callable[[int, int], None] = lambda *_: None
) -> list[Match]:
    """The embeddings nearest to a query by cosine, of those in the cells nearest to it.

    Args:
        query: its embedding, (width,).
        saved: the embeddings.
        top: how many to find; there may be fewer in the cells.
        progress: called while the index is made, the first time.

    Raises:
        FileError: the embeddings cannot be read, or the index cannot be written.
    """
    import faiss

    path = saved.kept(".faiss")
    if not path.is_file():
        with written_whole(path) as aside:
            faiss.write_index(_build_index(saved.vectors, progress), str(aside))
    index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    index.nprobe = max(8, index.nlist // READ)
    direction = F.normalize(query.float(), dim=-1).numpy()[None]
    scores, numbers = index.search(direction, min(top, len(saved.vectors)))
    pairs = zip(numbers[0].tolist(), scores[0].tolist(), strict=True)
    return [
        Match(number, min(1.0, score))
        for number, score in pairs
        if number >= 0 and np.isfinite(saved.vectors[number]).all()
    ]


def _build_index(vectors: np.ndarray[Any, Any], progress: Callable[[int, int], None]) -> Any:
    """An index of the embeddings at unit length, (texts, width)."""
    import faiss

    total, width = vectors.shape
    cells = max(1, int(total**0.5))
    quantizer = faiss.IndexFlatIP(width)
    index = faiss.IndexIVFFlat(quantizer, width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = 0
    chosen = np.linspace(0, total - 1, min(total, TRAINED_ON * cells), dtype=np.int64)
    index.train(_unit(vectors[chosen]))
    left_out, first = 0, 0
    for start in range(0, total, _ADDED):
        part = vectors[start : start + _ADDED]
        wrong = np.flatnonzero(~lengths_of(part)[1])
        first = start + int(wrong[0]) if len(wrong) and not left_out else first
        left_out += len(wrong)
        index.add(_unit(part))
        progress(min(start + _ADDED, total), total)
    if left_out:
        tell_left_out(left_out, first)
    return index


def _unit(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The embeddings at unit length; those with numbers that are not finite become zeros."""
    lengths, is_finite = lengths_of(vectors)
    unit = vectors / np.where(lengths == 0, 1, lengths)[:, None]
    unit[~is_finite] = 0
    return np.ascontiguousarray(unit, np.float32)

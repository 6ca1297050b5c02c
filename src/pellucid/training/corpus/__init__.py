"""Text to learn from: read from files of any size, and made into ids on disk once.

    .txt and others                 each file is a document
    .csv .tsv .jsonl .parquet       each row has a document, or the columns of a pair or example

All but Parquet may be packed: .gz, .bz2, .xz or .zst. Nothing is ever in memory as a whole: files
are read once to know how much there is, once for the vocabulary, and once for the ids.
"""

from pellucid.training.corpus.dataset_cache import checksum, forget
from pellucid.training.corpus.of_documents import Prepared, prepare
from pellucid.training.corpus.of_rows import PreparedRows, Rows, prepare_rows
from pellucid.training.corpus.text_files import Piece, Tally, documents, rows

__all__ = [
    "Piece",
    "Prepared",
    "PreparedRows",
    "Rows",
    "Tally",
    "checksum",
    "documents",
    "forget",
    "prepare",
    "prepare_rows",
    "rows",
]

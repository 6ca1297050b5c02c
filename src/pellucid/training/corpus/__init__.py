"""Training data: text files of any size, tokenized into a cache on disk.

    .txt and others                 each file is a document
    .csv .tsv .jsonl .parquet       each row has a document, a pair or a labelled text

All but Parquet may be compressed: .gz, .bz2, .xz or .zst. Files are streamed three times: to
measure them, for the vocabulary, and for the ids.
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

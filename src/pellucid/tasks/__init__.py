"""Tasks that the models solve.

    open_encoder    load all-MiniLM-L6-v2 or another encoder
    embed           one embedding per text
    predict         labels or numbers from the classifier that a model has
    similar         the texts nearest to a query
    cluster         groups of similar texts, labelled by their characteristic words
    Head            labels or numbers from embeddings, fitted on a few examples
    evaluate        figures of a head on held-out examples, beside chance
    generate        text that continues a prompt; `stream` yields it token by token
    translate       texts translated by beam search; `open_translator` loads Marian, T5 or BART
    alignment       the source words that each word of a translation attends to

Each task has a command; see docs/tasks.md, docs/generate.md and docs/translate.md.
"""

from pellucid.tasks.classify import Head
from pellucid.tasks.clustering import cluster
from pellucid.tasks.embedding import embed, open_encoder, predict
from pellucid.tasks.generation import generate, stream
from pellucid.tasks.held_out import evaluate
from pellucid.tasks.sampling import Sampling
from pellucid.tasks.similarity import similar
from pellucid.tasks.translated import Translation
from pellucid.tasks.translation import open_translator, translate
from pellucid.tasks.word_alignment import alignment

__all__ = [
    "Head",
    "Sampling",
    "Translation",
    "alignment",
    "cluster",
    "embed",
    "evaluate",
    "generate",
    "open_encoder",
    "open_translator",
    "predict",
    "similar",
    "stream",
    "translate",
]

"""What the models do for people.

    open_encoder    all-MiniLM-L6-v2, or another
    embed           texts -> one vector each
    similar         the texts that are nearest to a query
    cluster         groups of similar texts, each with telling words
    Head            a classifier on embeddings, fitted on a few labelled examples
    generate        text that goes on where a prompt ends; `stream`, as it is written
    translate       texts of one language into another; `open_translator` opens Marian or T5
    alignment       which words each word of a translation was made of

Each has a command; see docs/tasks.md, docs/generate.md and docs/translate.md.
"""

from pellucid.tasks.classify import Head, evaluate
from pellucid.tasks.clustering import cluster
from pellucid.tasks.embedding import embed, open_encoder
from pellucid.tasks.generation import generate, stream
from pellucid.tasks.sampling import Sampling
from pellucid.tasks.similarity import similar
from pellucid.tasks.translation import Translation, alignment, open_translator, translate

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
    "similar",
    "stream",
    "translate",
]

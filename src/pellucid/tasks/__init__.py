"""What the models do for people.

    open_encoder    all-MiniLM-L6-v2, or another
    embed           texts -> one vector each
    similar         the texts that are nearest to a query
    cluster         groups of similar texts, each with telling words
    Head            a classifier on embeddings, fitted on a few labelled examples

Each has a command; see docs/tasks.md.
"""

from pellucid.tasks.classify import Head, evaluate
from pellucid.tasks.cluster import cluster
from pellucid.tasks.embed import embed, open_encoder
from pellucid.tasks.similar import similar

__all__ = ["Head", "cluster", "embed", "evaluate", "open_encoder", "similar"]

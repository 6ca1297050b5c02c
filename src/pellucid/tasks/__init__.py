"""What the models do for people.

    embed       texts -> one vector each
    similar     the texts that are nearest to a query
    cluster     groups of similar texts, each with telling words
    classify    a head on embeddings, fitted on a few labelled examples

Each has a command of the same name; see docs/tasks.md.
"""

from pellucid.tasks.embed import embed

__all__ = ["embed"]

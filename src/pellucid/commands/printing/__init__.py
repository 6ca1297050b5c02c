"""What the commands print, each thing in a file of its own.

    walk            explain: a head at work, step by step
    scaling         scaling: why scores are divided by √d_k
    heads           watch, heads: a map of heads, a table, links between words
    embeddings      embed
    similarity      similar: matches, the nearest first
    clusters        cluster: groups of texts
    classification  classify: labels, and what is mistaken for what
    generation      generate: text as it is written, and what its words looked at
    translation     translate: lines, and what their words were made of
    training        train: the line that says how a run goes
    measures        train: what was measured of the model
    console         what all of them print with

Nothing but a command imports these.
"""

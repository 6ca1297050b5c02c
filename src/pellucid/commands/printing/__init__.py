"""The output of the commands, one file per kind of output.

    walk            explain: an attention head, step by step
    scaling         scaling: why scores are divided by √d_k
    heads           watch, heads: a map of heads, a table, links between words
    ablation        ablate: which heads matter
    embeddings      embed
    similarity      similar: the nearest texts
    clusters        cluster: groups of texts
    classification  classify: predicted labels
    evaluations     classify, train: figures on held-out texts
    generation      generate: text as it is generated, and what each new word attended to
    translation     translate: translations and their alignments
    training        train: the progress line
    measures        train: the measures of the trained model
    confusion       classify, train: confusion matrices
    console         text, shades and progress bars for all of them

Only commands import these.
"""

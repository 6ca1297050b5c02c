"""The commands, a module for each kind of work.

    lessons       explain, scaling
    lens          watch, heads
    view          view
    export        export
    tasks         embed, similar, cluster, classify
    generation    generate, translate

Each module has a `commands`, which `pellucid.cli` puts together. A command parses and prints; the
work is done by what it calls, and nothing heavy is imported before it runs.
"""

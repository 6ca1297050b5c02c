"""The commands, a module for each kind of work.

    lessons       explain, scaling
    learn         learn
    lens          watch, heads
    view          view
    export        export
    tasks         embed, similar, cluster, classify
    generation    generate, translate
    train         train

Each module has its commands, which `pellucid.cli` puts together. A command parses its options,
has the work done by what it calls, and prints (`printing`). `shared` has what all of them need,
`inputs` what they read; nothing heavy is imported before a command runs.
"""

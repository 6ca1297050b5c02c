"""The commands, one module per kind of work.

    lessons       explain, scaling
    learn         learn
    film          film
    lens          watch, heads
    tracing       trace, why
    ablation      ablate
    view          view
    export        export
    tasks         embed, similar, cluster, classify
    generation    generate, translate
    chat          chat
    train         train

`pellucid.cli` assembles the commands of these modules. A command parses its options, calls the
library, and prints with `printing`. `shared` holds their options and checks, `inputs` reads texts
and opens models. Nothing heavy is imported before a command runs.
"""

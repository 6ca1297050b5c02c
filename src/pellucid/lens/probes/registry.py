"""The probes: what a head may be, how that shows, and what should go without it."""

from collections.abc import Callable
from dataclasses import dataclass

from pellucid.lens.probes.experiments import Experiment
from pellucid.lens.probes.names import names
from pellucid.lens.probes.needle import needle
from pellucid.lens.probes.repeated_tokens import repeated_tokens
from pellucid.lens.probes.scores import Measure, is_largest, weight
from pellucid.lens.probes.sinks import first_token
from pellucid.lens.probes.vocabulary import Vocabulary

CLEAR = 0.4
"""The score from which a head looks like it, as in `heads`; by half of it above its baseline."""
RETRIEVES = 0.1
"""The same for retrieval (Wu et al. 2024, section 2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of the texts."""

    length: int
    texts: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The texts that several probes share."""

    make: Callable[[Vocabulary, Sizes], Experiment]
    needs_tokenizer: bool = False
    knocked_out: str = "output"
    """"output" of the head, or its links to the "first token"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a head may be."""

    name: str
    setting: str
    looks: str
    """What such a head looks at."""
    source: str
    measure: Measure = weight
    clear: float = CLEAR


SETTINGS = {
    "repeated tokens": Setting(
        make=lambda vocabulary, sizes: repeated_tokens(
            vocabulary, sizes.length, sizes.texts, sizes.seed
        )
    ),
    "needle": Setting(
        make=lambda vocabulary, sizes: needle(vocabulary, sizes.length, sizes.texts, sizes.seed),
        needs_tokenizer=True,
    ),
    "names": Setting(
        make=lambda vocabulary, sizes: names(vocabulary, sizes.texts, sizes.seed),
        needs_tokenizer=True,
    ),
    "text": Setting(
        make=lambda vocabulary, sizes: first_token(
            vocabulary, sizes.length, sizes.texts, sizes.seed
        ),
        knocked_out="first token",
    ),
}
PROBES = {
    probe.name: probe
    for probe in (
        Probe(
            name="previous token",
            setting="repeated tokens",
            looks="the token before",
            source="Elhage et al. 2021",
        ),
        Probe(
            name="duplicates",
            setting="repeated tokens",
            looks="the same token in the first half",
            source="Wang et al. 2023",
        ),
        Probe(
            name="induction",
            setting="repeated tokens",
            looks="what followed the same token in the first half",
            source="Olsson et al. 2022",
        ),
        Probe(
            name="retrieval",
            setting="needle",
            looks="the token of the needle that is to be written next",
            source="Wu et al. 2024",
            measure=is_largest,
            clear=RETRIEVES,
        ),
        Probe(
            name="name mover",
            setting="names",
            looks="the name that is to be written",
            source="Wang et al. 2023",
        ),
        Probe(
            name="S-inhibition",
            setting="names",
            looks="the second occurrence of the other name",
            source="Wang et al. 2023",
        ),
        Probe(
            name="first token",
            setting="text",
            looks="the first token",
            source="Xiao et al. 2024",
        ),
    )
}

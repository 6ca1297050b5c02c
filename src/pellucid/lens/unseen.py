"""Which modules look like attention and were not recorded: what a watch says it has not seen."""

import re

from pellucid.lens.module_selection import Parts, within

ALIKE = re.compile("attention|attn", re.IGNORECASE)
"""What the classes of attention have in their names."""
NOT_RUN = "was not run, or computes no softmax, so that there are no n x n weights"
NOT_WATCHED = "was not watched: say `with pellucid.watch(model) as seen:`"
NO_VALUES = "computes a softmax that meets no values over as many positions"


def unseen(
    parts: Parts,
    recorded: set[str],
    lost: dict[str, str],
    chosen: set[str] | None,
    softmaxed: set[str],
    was_open: bool,
) -> dict[str, str]:
    """Modules that attend, or look like it, and could not be recorded, each with the reason.

    Args:
        parts: all modules of the model.
        recorded: names of those that were recorded.
        lost: those whose calls were met and could not be recorded, with the reasons.
        chosen: those to watch; all if None.
        softmaxed: those that computed a softmax.
        was_open: whether the watch has been entered.
    """
    found = dict.fromkeys(
        silent(parts, recorded | lost.keys(), chosen), NOT_RUN if was_open else NOT_WATCHED
    )
    for name in softmaxed & found.keys():
        found[name] = NO_VALUES
    return found | lost


def silent(parts: Parts, accounted: set[str], chosen: set[str] | None) -> list[str]:
    """Modules that look like attention, none of whose calls is accounted for."""
    alike = {name for name in attending(parts) if chosen is None or name in chosen}
    # A wrapper around a module that was recorded (BertAttention) is seen through it, and so is a
    # part of one. Of nested ones that were not, the innermost is the one to look at.
    lost = {
        name
        for name in alike
        if not any(within(other, name) or within(name, other) for other in accounted)
    }
    return sorted(name for name in lost if not any(within(other, name) for other in lost - {name}))


def attending(parts: Parts) -> list[str]:
    """Modules whose class is called like attention."""
    alike = {kind for kind in {type(part) for _, part in parts} if ALIKE.search(kind.__name__)}
    return [name for name, part in parts if type(part) in alike]

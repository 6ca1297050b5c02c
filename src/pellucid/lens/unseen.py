"""Which modules look like attention but were not recorded, and why."""

import re
from collections.abc import Mapping

from pellucid.lens.module_names import Modules, is_cross, within

ATTENTION = re.compile("attention|attn", re.IGNORECASE)
"""Matches the class names of attention modules."""
NOT_RUN = "was not run, or computes no softmax, so that there are no n x n weights"
NOT_WATCHED = "was not watched: say `with pellucid.watch(model) as seen:`"
NO_VALUES = "computes a softmax that meets no values over as many positions"


def unseen(
    modules: Modules,
    recorded: set[str],
    lost: dict[str, str],
    selected: set[str] | None,
    softmaxed: set[str],
    was_open: bool,
) -> dict[str, str]:
    """Modules that attend, or look as if they do, and were not recorded, each with the reason.

    Args:
        modules: all modules of the model.
        recorded: names of the modules that were recorded.
        lost: modules whose calls were intercepted but not recorded, with the reasons.
        selected: names of the modules to watch; all if None.
        softmaxed: names of the modules that computed a softmax.
        was_open: whether the watch has been entered.
    """
    accounted = recorded | lost.keys()
    # Leave out wrappers of a recorded module (BertAttention) and modules inside one.
    silent = {
        name
        for name in attention_modules(modules)
        if (selected is None or name in selected)
        and not any(within(other, name) or within(name, other) for other in accounted)
    }
    reasons = {
        name: NO_VALUES if name in softmaxed else NOT_RUN if was_open else NOT_WATCHED
        for name in sorted(silent)
        if not any(within(other, name) for other in silent - {name})  # the innermost of nested ones
    }
    return reasons | lost


def attention_modules(modules: Modules) -> list[str]:
    """Names of the modules whose class name says that they are attention."""
    kinds = {kind for kind in {type(x) for _, x in modules} if ATTENTION.search(kind.__name__)}
    return [name for name, module in modules if type(module) in kinds]


def unseen_note(unseen: Mapping[str, str], *, cross: bool) -> str:
    """The end of an error message: the first unseen cross- or self-attention, and why."""
    for name, reason in unseen.items():
        if is_cross(name) == cross:
            return f"; unseen: {name}, which {reason}"
    return ""

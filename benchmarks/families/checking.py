"""Would a wrong number be noticed? Records are changed a little, and must come out as different."""

from typing import Any

import pellucid
from benchmarks.families import catalogue
from benchmarks.families.building import built
from benchmarks.families.comparing import DIFFERENT, EXACT, Recorded, compared
from benchmarks.families.truth import NUDGE, weights_of
from pellucid.attention import attention_weights

FAMILIES = ("bert", "gpt2", "llama", "mistral", "mixtral", "t5", "vit", "whisper", "xglm")


def check(families: list[str]) -> bool:
    """Whether each record of these families passes, and fails once its scale is off by 0.1 %."""
    passed = True
    for family in families or FAMILIES:
        model = built(catalogue.classes(family)[0], lambda model: True)
        assert model is not None
        truth = weights_of(model.model, model.run)
        with pellucid.watch(model.model) as seen:
            model.run()
        verdicts = [
            {finding.verdict for finding in compared(truth, records, {}).findings}
            for records in (
                [_record(x, 1.0) for x in seen.records],
                [_record(x, NUDGE) for x in seen.records],
            )
        ]
        passed &= verdicts == [{EXACT}, {DIFFERENT}]
        print(f"{family}: as it is {_listed(verdicts[0])}, off by 0.1 % {_listed(verdicts[1])}")
    return passed


def _record(record: Any, factor: float) -> Recorded:
    """A record, its scale multiplied by a factor."""
    scale = record.query.shape[-1] ** -0.5 if record.scale is None else record.scale
    weights = attention_weights(
        record.query,
        record.key,
        record.mask,
        bias=record.bias,
        scale=scale * factor,
        softcap=record.softcap,
        sinks=record.sinks,
    )
    return Recorded(record.name, weights[...].double(), "lazily")


def _listed(verdicts: set[str]) -> str:
    return " and ".join(sorted(verdicts)) or "nothing"

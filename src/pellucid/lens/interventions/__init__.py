"""intervene(): change the attention of any PyTorch model while it runs.

    with pellucid.intervene(model) as edit:
        edit.knock_out(layer=3, head=1)
        model(**inputs)

Edits go the way in that a watch goes (see `interception`): after the attention of a module has
run, the contexts of the edited heads are put in its place. `edits` says what an edit is,
`selection` and `places` which heads and positions it means, `regions` what that is in one call;
`closed_form` and `exact` compute contexts of edited weights, `outputs` scales and replaces the
outputs of heads, `application` does all of it for one call, `softmax_edits` for a softmax by hand,
and `telling` says what a watch is told. `editor` listens to the model, `intervention` is what the
user sees, `sources` gives replacements, and `paths` patches a path from head to head.
"""

from pellucid.lens.interventions.intervention import Intervention, intervene
from pellucid.lens.interventions.paths import path_patch

__all__ = ["Intervention", "intervene", "path_patch"]

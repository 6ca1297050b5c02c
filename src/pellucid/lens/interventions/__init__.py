"""intervene(): change the attention of any PyTorch model while it runs.

    with pellucid.intervene(model) as edit:
        edit.knock_out(layer=3, head=1)
        model(**inputs)

Edits go the way in that a watch goes (see `interception`): after the attention of a module has
run, the contexts of the edited heads are put in its place. `edits` says what an edit is,
`selection` and `places` which heads and positions it means, `closed_form` and `exact` compute
contexts without links, `outputs` scales and replaces the outputs of heads, `application` does all
of it for one call, and `telling` says what a watch is told.
"""

from pellucid.lens.interventions.intervention import Intervention, intervene

__all__ = ["Intervention", "intervene"]

"""See through models that someone else wrote: record the attention of every layer, lazily."""

from pellucid.lens.alignment import align
from pellucid.lens.attention_rollout import rollout
from pellucid.lens.attributions import attribution, gradient_times_weights
from pellucid.lens.eviction import h2o_scores, snapkv_scores
from pellucid.lens.head_table import HeadTable, heads
from pellucid.lens.projection import output_projection
from pellucid.lens.record import Record
from pellucid.lens.recorder import Watch, watch
from pellucid.lens.recording import Recording
from pellucid.lens.spelling import words

__all__ = [
    "HeadTable",
    "Record",
    "Recording",
    "Watch",
    "align",
    "attribution",
    "gradient_times_weights",
    "h2o_scores",
    "heads",
    "output_projection",
    "rollout",
    "snapkv_scores",
    "watch",
    "words",
]

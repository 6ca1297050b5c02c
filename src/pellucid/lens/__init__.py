"""Record the attention of every layer of any PyTorch model, lazily, and analyse it."""

from pellucid.lens.alignment import align
from pellucid.lens.attention_rollout import rollout
from pellucid.lens.eviction import h2o_scores, snapkv_scores
from pellucid.lens.gradient_attribution import gradient_times_weights
from pellucid.lens.head_measures import heads
from pellucid.lens.head_table import HeadTable
from pellucid.lens.interventions import Intervention, intervene
from pellucid.lens.link_removal import Without, without
from pellucid.lens.norm_attribution import attribution
from pellucid.lens.projection import output_projection
from pellucid.lens.record import Record
from pellucid.lens.recorder import Watch, watch
from pellucid.lens.recording import Recording
from pellucid.lens.spelling import words
from pellucid.lens.tracing.residual_stream import ResidualStream, Source, residual_stream
from pellucid.lens.tracing.trace import Trace, trace
from pellucid.lens.tracing.why import Why, why

__all__ = [
    "HeadTable",
    "Intervention",
    "Record",
    "Recording",
    "ResidualStream",
    "Source",
    "Trace",
    "Watch",
    "Why",
    "Without",
    "align",
    "attribution",
    "gradient_times_weights",
    "h2o_scores",
    "heads",
    "intervene",
    "output_projection",
    "residual_stream",
    "rollout",
    "snapkv_scores",
    "trace",
    "watch",
    "why",
    "without",
    "words",
]

"""Record the attention of every layer of any PyTorch model, lazily, and analyse it."""

from pellucid.lens.alignment import align
from pellucid.lens.attention_rollout import rollout
from pellucid.lens.eviction import (
    expected_attention_scores,
    h2o_scores,
    snapkv_scores,
    streaming_llm_scores,
)
from pellucid.lens.future_attention import future_mass, future_masses
from pellucid.lens.gradient_attribution import gradient_times_weights
from pellucid.lens.head_measures import heads
from pellucid.lens.head_table import HeadTable
from pellucid.lens.interventions import Intervention, intervene, path_patch
from pellucid.lens.link_ranking import link_effects
from pellucid.lens.link_removal import Without, without
from pellucid.lens.link_table import LinkTable
from pellucid.lens.norm_attribution import attribution
from pellucid.lens.policy_recall import KeepRecent, eviction_policies, eviction_recall
from pellucid.lens.probes import ProbeTable, probe_heads
from pellucid.lens.projection import output_projection
from pellucid.lens.recall_table import RecallTable
from pellucid.lens.record import Record
from pellucid.lens.recorder import Watch, watch
from pellucid.lens.recording import Recording
from pellucid.lens.spelling import words
from pellucid.lens.tracing.residual_stream import ResidualStream, residual_stream
from pellucid.lens.tracing.trace import Trace, trace
from pellucid.lens.tracing.why import Why, why
from pellucid.lens.tracing.written import Source

__all__ = [
    "HeadTable",
    "Intervention",
    "KeepRecent",
    "LinkTable",
    "ProbeTable",
    "RecallTable",
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
    "eviction_policies",
    "eviction_recall",
    "expected_attention_scores",
    "future_mass",
    "future_masses",
    "gradient_times_weights",
    "h2o_scores",
    "heads",
    "intervene",
    "link_effects",
    "output_projection",
    "path_patch",
    "probe_heads",
    "residual_stream",
    "rollout",
    "snapkv_scores",
    "streaming_llm_scores",
    "trace",
    "watch",
    "why",
    "without",
    "words",
]

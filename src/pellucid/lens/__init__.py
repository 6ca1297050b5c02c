"""See through models that someone else wrote: record the attention of every layer, lazily."""

from pellucid.lens.eviction import h2o_scores, snapkv_scores
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.rollout import rollout
from pellucid.lens.watch import Watch, watch

__all__ = ["Record", "Recording", "Watch", "h2o_scores", "rollout", "snapkv_scores", "watch"]

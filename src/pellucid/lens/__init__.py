"""See through models that someone else wrote: record the attention of every layer, lazily."""

from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.rollout import rollout
from pellucid.lens.watch import Watch, watch

__all__ = ["Record", "Recording", "Watch", "rollout", "watch"]

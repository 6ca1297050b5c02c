"""See through models that someone else wrote: record the attention of every layer, lazily."""

from pellucid.lens.watch import Record, Watch, watch

__all__ = ["Record", "Watch", "watch"]

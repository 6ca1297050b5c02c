"""Whole folders of files, in parts: embedded, classified, translated, or watched head by head.

The parts of a corpus are worked through in this process, or by many on Ray; either way a part is
written whole or not at all, and a run that was ended goes on where it was.
"""

from pellucid.corpora.engine import Summary, run
from pellucid.corpora.head_statistics import CorpusHeads, HeadSummary, summarise_heads
from pellucid.corpora.tasks import Classify, Embed, MeasureHeads, Translate

__all__ = [
    "Classify",
    "CorpusHeads",
    "Embed",
    "HeadSummary",
    "MeasureHeads",
    "Summary",
    "Translate",
    "run",
    "summarise_heads",
]

"""Training objectives, with their evaluation."""

from pellucid.training.objectives.base import Objective, Part
from pellucid.training.objectives.encoding import Classification, Contrastive, Masked
from pellucid.training.objectives.next_token import NextToken
from pellucid.training.objectives.translation import Translation

__all__ = [
    "Classification",
    "Contrastive",
    "Masked",
    "NextToken",
    "Objective",
    "Part",
    "Translation",
]

"""Training objectives, with their evaluation."""

from pellucid.training.objectives.base import Objective, Part
from pellucid.training.objectives.classification import Classification
from pellucid.training.objectives.encoding import Masked
from pellucid.training.objectives.next_token import NextToken
from pellucid.training.objectives.pairs import Contrastive
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

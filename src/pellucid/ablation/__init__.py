"""What heads matter: each is knocked out in turn, beside random heads of the same size."""

from pellucid.ablation.ablating import ablate, ablate_together
from pellucid.ablation.effects import Ablation, HeadEffect
from pellucid.ablation.together import SetEffect

__all__ = ["Ablation", "HeadEffect", "SetEffect", "ablate", "ablate_together"]

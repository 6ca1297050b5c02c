"""What heads matter: each is knocked out in turn, beside random heads of the same size."""

from pellucid.ablation.ablating import ablate
from pellucid.ablation.effects import Ablation, HeadEffect

__all__ = ["Ablation", "HeadEffect", "ablate"]

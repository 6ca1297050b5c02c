"""Exact attention weights at the speed of the fused kernels.

The package is also callable: both `pellucid.attention(query, key, value)` and
`pellucid.attention.masks` work.
"""

import sys
from types import ModuleType
from typing import Any

from pellucid.attention import energies, masks
from pellucid.attention.dense_weights import given_weights
from pellucid.attention.functional import attention, attention_weights
from pellucid.attention.weights import AttentionWeights

__all__ = [
    "AttentionWeights",
    "attention",
    "attention_weights",
    "energies",
    "given_weights",
    "masks",
]


class _CallableModule(ModuleType):
    # Importing any submodule binds `pellucid.attention` to this module, so a function of that name
    # cannot exist beside it; the module takes the call instead.
    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.attention(*args, **options)  # looked up, since a recorder may have wrapped it


sys.modules[__name__].__class__ = _CallableModule

"""What heads do on texts made for the purpose, and whether it matters: names that are earned.

`registry` lists the probes, with their sources. `experiments` says what their texts have in common;
`repeated_tokens`, `needle`, `names` and `sinks` make these, of the words of `phrases` and of what a
`vocabulary` has. `scores` reads the weights of all heads at the links that a probe asks about.
`knock_outs` measures a behaviour without some heads, and `checking` compares that with random ones.
`probing` is all of it together, and `probe_table` the result.
"""

from pellucid.lens.probes.probe_table import Check, ProbeRow, ProbeTable
from pellucid.lens.probes.probing import probe_heads

__all__ = ["Check", "ProbeRow", "ProbeTable", "probe_heads"]

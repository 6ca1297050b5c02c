"""What heads do on texts made for the purpose, and whether it matters: names that are earned.

registry          the probes, with their sources
experiments       texts with a pattern, and controls without
repeated_tokens, needle, names, sinks    these texts; phrases has the words
vocabulary        what they ask of a tokenizer
scores            the weights of all heads at the links that a probe asks about
knock_outs        the behaviour without some heads, and without random ones
probing           all of it together
probe_table       the result
"""

from pellucid.lens.probes.probe_table import Check, ProbeRow, ProbeTable
from pellucid.lens.probes.probing import probe_heads

__all__ = ["Check", "ProbeRow", "ProbeTable", "probe_heads"]

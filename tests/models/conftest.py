"""What tests of models share."""

from collections.abc import Iterator

import pytest


@pytest.fixture
def quiet_transformers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Transformers without its log, for which it spells out each config, and progress bars."""
    from transformers import PreTrainedConfig, logging

    monkeypatch.setattr(PreTrainedConfig, "__repr__", object.__repr__)

    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    yield
    logging.set_verbosity(verbosity)
    if has_bars:
        logging.enable_progress_bar()

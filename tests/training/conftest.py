"""A run that is done and processes, for the tests of this directory."""

from tests.training.runs import _kept, done, processes  # noqa: F401  fixtures

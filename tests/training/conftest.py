"""A run that is done, for the tests of this directory."""

from tests.training.runs import _kept, done  # noqa: F401  fixtures

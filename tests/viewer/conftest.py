"""A browser and servers for the tests of this directory."""

from tests.viewer.browser import browser, opened, shown, windows  # noqa: F401  fixtures

"""Display in a notebook."""

from collections.abc import Container
from importlib import import_module
from typing import Any

PAGE = "pellucid.viewer.notebook"
"""The module with the page for notebooks. This package may not import it, so it is loaded by name
when a notebook asks."""


class Displayed:
    """Something with a page in a notebook: weights, or a recording of them."""

    def _repr_mimebundle_(
        self, include: Container[str] | None = None, exclude: Container[str] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The page where widgets run, a picture where they do not, and the text, by MIME type.

        Args:
            include: types that are wanted; all unless given.
            exclude: types that are not.
        """
        bundle: tuple[dict[str, Any], dict[str, Any]]
        bundle = import_module(PAGE).bundle(self, include, exclude)
        return bundle

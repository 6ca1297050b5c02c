"""What displays itself in a notebook."""

from collections.abc import Container
from importlib import import_module
from typing import Any

PAGE = "pellucid.viewer.notebook"
"""Where the page for notebooks is. A notebook asks the thing itself, and that is below the page in
the map of the house: so it knows its name alone, and loads it when a notebook asks."""


class Displayed:
    """Something with a page: weights, or a recording of them."""

    def _repr_mimebundle_(
        self, include: Container[str] | None = None, exclude: Container[str] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The page where widgets run, a picture for where they do not, and the text, by MIME types.

        Args:
            include: types that are wanted; all unless given.
            exclude: types that are not.
        """
        bundle: tuple[dict[str, Any], dict[str, Any]]
        bundle = import_module(PAGE).bundle(self, include, exclude)
        return bundle

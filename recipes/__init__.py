"""How what is made for the package is made, so that anyone can make it again."""

import sys
from collections.abc import Callable

from pellucid.errors import PellucidError


def told(main: Callable[[], None]) -> None:
    """Run a recipe; what it complains of is one line, and exit status 2."""
    try:
        main()
    except PellucidError as error:
        sys.exit(_complain(error))


def _complain(error: PellucidError) -> int:
    print(f"recipes: {error}", file=sys.stderr)
    return 2

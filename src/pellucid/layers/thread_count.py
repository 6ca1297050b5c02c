"""How many threads a compiled loop uses, found by the time that its last calls took.

The threads of a loop wait for one another. Where another program has one of the cores, each wait
lasts until a thread gets its turn again, and fewer threads are many times faster.
"""

FIRST_TRIAL = 4
"""The call in which fewer threads are tried, so that the times of both are known."""
PATIENCE, MOST_PATIENCE = 32, 512
"""Calls with fewer threads until all are tried again; doubled, up to a limit, while they stay
slower."""


class ThreadCount:
    """Chooses between all threads and half of them, for calls that do the same work."""

    def __init__(self) -> None:
        self._calls = 0
        self._all: float | None = None
        self._fewer: float | None = None
        """Seconds of the last call with so many threads."""
        self._left = 0
        """Calls still to be made with fewer threads."""
        self._is_suspect = False
        """Whether the last call with all threads was slower than one with fewer. A second one in a
        row is no accident."""
        self._patience = PATIENCE

    def choose(self, most: int) -> int:
        """How many of `most` threads the next call uses."""
        self._calls += 1
        if self._calls == FIRST_TRIAL:
            self._left = 1
        return max(1, most // 2) if self._left else most

    def note(self, seconds: float) -> None:
        """The time that the chosen number took."""
        if self._calls == 1:  # it may have compiled the loop, or started the threads
            return
        if self._left:
            self._fewer = seconds
            self._left = 0 if self._all is not None and seconds > self._all else self._left - 1
            return
        self._all = seconds
        if self._fewer is None or seconds <= self._fewer:
            self._is_suspect, self._patience = False, PATIENCE
        elif not self._is_suspect:
            self._is_suspect = True
        else:
            self._left = self._patience
            self._patience = min(2 * self._patience, MOST_PATIENCE)

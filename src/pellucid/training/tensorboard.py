"""TensorBoard output, if it is installed; its errors never end a run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pellucid.common.files import printable


class Board:
    """A TensorBoard writer that is dropped at its first error."""

    def __init__(self, writer: Any, say: Callable[[str], None]) -> None:
        self.writer, self.say = writer, say

    @classmethod
    def open(cls, directory: Path, step: int, say: Callable[[str], None]) -> "Board | None":
        """Open a log that continues after a step; None if TensorBoard is not installed."""
        if find_spec("tensorboard") is None:
            return None
        board = cls(None, say)
        with board._harmless():
            from torch.utils.tensorboard import SummaryWriter

            board.writer = SummaryWriter(str(directory), purge_step=step + 1)
        return board

    def add(self, group: str, numbers: dict[str, Any], step: int) -> None:
        """Add scalars named group/name, except those that are None."""
        with self._harmless():
            for name, number in numbers.items():
                if number is not None and self.writer is not None:
                    self.writer.add_scalar(f"{group}/{name}", number, step)

    def tell(self, name: str, lines: list[str], step: int) -> None:
        """Add preformatted text."""
        with self._harmless():
            if lines and self.writer is not None:  # Markdown: four spaces make a code block
                self.writer.add_text(name, "\n".join("    " + line for line in lines), step)

    def close(self) -> None:
        with self._harmless():
            if self.writer is not None:
                self.writer.close()

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Report an error once, and continue without TensorBoard."""
        try:
            yield
        except Exception as error:
            self.writer = None
            self.say(f"TensorBoard failed: {printable(str(error)) or type(error).__name__}")

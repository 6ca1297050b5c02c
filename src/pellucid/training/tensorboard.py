"""A run on TensorBoard, where that is installed: a guest, which never ends a run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pellucid.common.files import printable


class Board:
    """TensorBoard, as long as nothing goes wrong with it."""

    def __init__(self, writer: Any, say: Callable[[str], None]) -> None:
        self.writer, self.say = writer, say

    @classmethod
    def open(cls, directory: Path, step: int, say: Callable[[str], None]) -> "Board | None":
        """One that goes on after a step, or none where TensorBoard is not installed."""
        if find_spec("tensorboard") is None:
            return None
        board = cls(None, say)
        with board._harmless():
            from torch.utils.tensorboard import SummaryWriter

            board.writer = SummaryWriter(str(directory), purge_step=step + 1)
        return board

    def add(self, group: str, numbers: dict[str, Any], step: int) -> None:
        """Curves named group/number; what is None is left out."""
        with self._harmless():
            for name, number in numbers.items():
                if number is not None and self.writer is not None:
                    self.writer.add_scalar(f"{group}/{name}", number, step)

    def tell(self, name: str, lines: list[str], step: int) -> None:
        """A text, as it stands."""
        with self._harmless():
            if lines and self.writer is not None:  # which reads Markdown: four blanks keep a line
                self.writer.add_text(name, "\n".join("    " + line for line in lines), step)

    def close(self) -> None:
        with self._harmless():
            if self.writer is not None:
                self.writer.close()

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Whatever fails, it is said once, and the run goes on without."""
        try:
            yield
        except Exception as error:
            self.writer = None
            self.say(f"TensorBoard is left out: {printable(str(error)) or type(error).__name__}")

"""How a Python program shows what happens: a block that grows in a notebook, lines on a terminal."""

import html
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

Progress: TypeAlias = bool | Callable[[str], None]
"""True: shown where the program runs; False: nothing; a function: it gets each line of text."""

_LINES = 15


class Display(Protocol):
    """Takes lines of text."""

    def line(self, text: str) -> None:
        """A line that stays."""

    def detail(self, text: str) -> None:
        """A line that the next one replaces, where that can be done."""


def display_for(progress: Progress) -> Display:
    """The display of this program."""
    if callable(progress):
        return _Lines(progress)
    if not progress:
        return _Lines(lambda text: None)
    return _Notebook() if in_notebook() else _Terminal()


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this program; asks nothing of programs that have not loaded IPython."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class _Lines:
    """Every line to a function; no details."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self.line = take

    def detail(self, text: str) -> None:
        """Passed over."""


class _Terminal:
    """Lines on stderr; on a real terminal the last one may be about to change."""

    def __init__(self) -> None:
        self._pending = 0

    def line(self, text: str) -> None:
        self._write(text + "\n")
        self._pending = 0

    def detail(self, text: str) -> None:
        if sys.stderr.isatty():
            self._write(text)
            self._pending = len(text)

    def _write(self, text: str) -> None:
        erased = f"\r{' ' * self._pending}\r" if self._pending else ""
        print(erased + text, end="", file=sys.stderr, flush=True)


class _Notebook:
    """One block of output below the cell: the latest lines, and the one that is about to change."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._handle: Any = None

    def line(self, text: str) -> None:
        self._lines.append(text)
        self._show()

    def detail(self, text: str) -> None:
        self._show(text)

    def _show(self, detail: str = "") -> None:
        from IPython.display import HTML, display

        left_out = ["..."] if len(self._lines) > _LINES else []
        text = "\n".join([*left_out, *self._lines[-_LINES:], *([detail] if detail else [])])
        block = HTML(f"<pre>{html.escape(text)}</pre>")
        if self._handle is None:
            self._handle = display(block, display_id=True)
        else:
            self._handle.update(block)

"""Writes docs/tutorial.ipynb from docs/tutorial.md: ``python scripts/make_notebook.py``."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, NOTEBOOK = DOCS / "tutorial.md", DOCS / "tutorial.ipynb"
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def notebook(page: str) -> str:
    """The page as a notebook: its Python blocks are the cells."""
    cells = [
        {"id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True), **about}
        for number, (text, about) in enumerate(_parts(page))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _parts(page: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Texts and code in turn, with what makes them cells."""
    for position, part in enumerate(_PYTHON.split(page)):
        text = part.strip("\n")
        if position % 2:
            yield text, {"cell_type": "code", "execution_count": None, "outputs": []}
        elif text:
            yield text, {"cell_type": "markdown"}


def main() -> None:
    """Writes the notebook."""
    NOTEBOOK.write_text(notebook(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(NOTEBOOK)


if __name__ == "__main__":
    main()

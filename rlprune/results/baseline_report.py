"""The files of a comparison that are made from its records, made again."""

from collections.abc import Sequence

from rlprune.results.baseline_plot import comparison_png
from rlprune.results.baseline_record import BaselineFiles, BaselineRecord
from rlprune.results.baseline_table import comparison_csv, comparison_markdown
from rlprune.results.compared import COMPARED
from rlprune.results.folder import write_atomically

MARKDOWN, PICTURE = "compare.md", "compare.png"


def write_comparison(files: BaselineFiles, records: Sequence[BaselineRecord], base: Sequence[str]) -> str:
    """Writes ``compare.csv``, ``.md`` and ``.png`` into the run folder.

    Args:
        files: The run's.
        records: All networks, the run's own included.
        base: Lines about the base model.

    Returns:
        The Markdown.
    """
    text = comparison_markdown(records, base)
    write_atomically(files.run / COMPARED, comparison_csv(records))
    write_atomically(files.run / MARKDOWN, text)
    write_atomically(files.run / PICTURE, comparison_png(records))
    return text

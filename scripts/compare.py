"""Many comparisons in one table, such as those of the same search with several seeds.

    python scripts/compare.py results/SEED0 results/SEED1 results/SEED2

Each run must have been compared (``rlprune compare RUN``); its ``compare.csv`` is read. Prints Markdown.
"""

import argparse
import sys
from pathlib import Path

from rlprune.errors import RlpruneError
from rlprune.results.baseline_study import read_points, study_markdown


def main() -> int:
    """Prints the table of the runs that are named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table to this file")
    arguments = parser.parse_args()
    try:
        text = study_markdown(read_points(arguments.runs))
    except RlpruneError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

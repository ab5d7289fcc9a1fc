"""The search: ``python scripts/tune.py --b-grid 0.5,1,2`` is ``rlprune search --b-grid 0.5,1,2``."""

import sys

from rlprune.cli import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))

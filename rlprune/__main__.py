"""``python -m rlprune`` is ``rlprune``."""

import sys

from rlprune.cli import main

if __name__ == "__main__":
    sys.exit(main())

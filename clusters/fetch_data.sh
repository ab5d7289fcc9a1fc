#!/usr/bin/env bash
# Downloads a data set to where the driver looks for it. A failure is no reason to give the node up: the search
# tries again when it starts, and says what is missing.
set -uo pipefail

"$HOME/rlprune-env/bin/python" - "$1" << 'PYTHON' || echo "$1 is not there yet; the search will fetch it"
import sys

sys.path.insert(0, __import__("os").path.expanduser("~/rlprune"))
from rlprune.config import DataConfig
from rlprune.data import load_splits

load_splits(DataConfig(source=sys.argv[1]))
PYTHON

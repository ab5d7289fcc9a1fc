"""rlprune in a Python program or a notebook: what ``rlprune.prune`` and ``rlprune.search`` do."""

import warnings

# what Ray and Optuna import would show bars in a notebook, and says so where it cannot: none are shown here
warnings.filterwarnings("ignore", message="IProgress not found")

"""rlprune in a Python program or a notebook: what ``rlprune.prune`` and ``rlprune.search`` do."""

import logging
import warnings

# what Ray and Optuna import asks for ipywidgets in a notebook, to show bars: none are shown here
warnings.filterwarnings("ignore", message="IProgress not found")
logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)

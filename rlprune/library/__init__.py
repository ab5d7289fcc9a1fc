"""rlprune in a Python program or a notebook: what ``rlprune.prune`` and ``rlprune.search`` do."""

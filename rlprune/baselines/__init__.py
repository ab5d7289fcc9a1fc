"""Baselines: other ways to prune the base model to the MACs of a run's networks, fine-tuned as long."""

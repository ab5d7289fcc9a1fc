"""Training, evaluation and the files that networks are kept in."""

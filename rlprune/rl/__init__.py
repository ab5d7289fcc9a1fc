"""Agents: the pruning reward, its environment, and policies trained by RLlib to choose which filters stay."""

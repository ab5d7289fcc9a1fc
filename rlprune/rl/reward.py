"""The pruning reward of Huang et al. 2018.

"Learning to Prune Filters in Convolutional Neural Networks", arXiv 1801.07365.

Pure functions of numbers or arrays. Accuracies, drops and the drop bound ``b`` are percentage points.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def accuracy_term(drop: ArrayLike, b: float) -> NDArray[np.float64]:
    """The accuracy term psi, equation 3 of the paper: ``psi = (b - (p_base - p_pruned)) / b``.

    It is 1 without a drop, 0 at the drop bound, negative beyond it, and above 1 where pruning gains accuracy.

    Args:
        drop: Base accuracy minus pruned accuracy in percentage points, any shape.
        b: Drop bound in percentage points, above 0.

    Returns:
        psi, in the shape of ``drop``.

    Raises:
        ValueError: ``b`` is not a finite number above 0.
    """
    if not (np.isfinite(b) and b > 0):
        raise ValueError(f"the drop bound b must be a finite number of percentage points above 0; got {b}")
    return (b - np.asarray(drop, dtype=np.float64)) / b


def efficiency_term(total: ArrayLike, kept: ArrayLike) -> NDArray[np.float64]:
    """The efficiency term phi, equation 4 of the paper: ``phi = log(N / n_kept)``, natural logarithm.

    The paper counts the filters of a layer; MACs or parameters can be counted instead, as long as both
    arguments have the same unit. It is 0 where nothing is removed.

    Args:
        total: Filters (or MACs, or parameters) before pruning, above 0.
        kept: What is left of them, above 0; broadcast against ``total``.

    Returns:
        phi, in the shape that ``total`` and ``kept`` are broadcast to.

    Raises:
        ValueError: One of the counts is zero, negative or not finite.
    """
    counts = {"total": np.asarray(total, dtype=np.float64), "kept": np.asarray(kept, dtype=np.float64)}
    for name, count in counts.items():
        wrong = ~(np.isfinite(count) & (count > 0))
        if wrong.any():
            raise ValueError(f"{name} must be finite and above 0; got {count[wrong][0]}")
    return np.log(counts["total"] / counts["kept"])


def pruning_reward(drop: ArrayLike, b: float, total: ArrayLike, kept: ArrayLike) -> NDArray[np.float64]:
    """The reward of a mask, equation 2 of the paper: ``R = psi * phi``.

    Args:
        drop: Base accuracy minus pruned accuracy in percentage points, for example shape (m,) for m masks.
        b: Drop bound in percentage points, above 0.
        total: Filters (or MACs, or parameters) before pruning, above 0.
        kept: What is left of them, above 0, shape (m,).

    Returns:
        R, shape (m,): 0 where nothing is removed, negative where the drop is beyond ``b``.
    """
    return accuracy_term(drop, b) * efficiency_term(total, kept)

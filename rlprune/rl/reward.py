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

    The paper counts the filters of a layer; MACs, parameters or milliseconds can be counted instead, as long
    as both arguments have the same unit. It is 0 where nothing is removed.

    Args:
        total: Filters (or MACs, parameters, milliseconds) before pruning, above 0.
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


def weighted_efficiency(efficiency: ArrayLike, weight: float) -> NDArray[np.float64]:
    """The efficiency term raised to a power, ``phi ** weight``; the sign of phi is kept.

    As ``R = psi * phi ** weight``, a relative change of phi counts ``weight`` times as much as the same
    relative change of psi: above 1 the agent gives more accuracy for a smaller network, below 1 less.
    A constant factor would change no ranking of masks. Where phi is 0 the result is 0.

    Args:
        efficiency: phi, any shape.
        weight: The exponent, above 0; 1 is the paper's reward.

    Raises:
        ValueError: The weight is not a finite number above 0.
    """
    if not (np.isfinite(weight) and weight > 0):
        raise ValueError(f"the efficiency weight must be a finite number above 0; got {weight}")
    phi = np.asarray(efficiency, dtype=np.float64)
    return np.sign(phi) * np.abs(phi) ** weight


def pruning_reward(
    drop: ArrayLike, b: float, total: ArrayLike, kept: ArrayLike, efficiency_weight: float = 1.0
) -> NDArray[np.float64]:
    """The reward of a mask: ``R = psi * phi ** weight``, with weight 1 equation 2 of the paper.

    Args:
        drop: Base accuracy minus pruned accuracy in percentage points, for example shape (m,) for m masks.
        b: Drop bound in percentage points, above 0.
        total: Filters (or MACs, parameters, milliseconds) before pruning, above 0.
        kept: What is left of them, above 0, shape (m,).
        efficiency_weight: See :func:`weighted_efficiency`.

    Returns:
        R, shape (m,): 0 where nothing is removed, negative where the drop is beyond ``b``.
    """
    return accuracy_term(drop, b) * weighted_efficiency(efficiency_term(total, kept), efficiency_weight)

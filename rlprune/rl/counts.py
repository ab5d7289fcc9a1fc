"""How many filters a group may keep: any number above 0, multiples of what hardware likes, or a few."""

import numpy as np
from numpy.typing import NDArray


def allowed_counts(n_filters: int, multiple: int) -> NDArray[np.int64]:
    """The multiples up to ``n_filters``, and ``n_filters`` itself: sorted."""
    return np.unique([*range(multiple, n_filters + 1, multiple), n_filters])


def nearest_counts(kept: NDArray[np.integer], allowed: NDArray[np.int64]) -> NDArray[np.int64]:
    """The allowed count (sorted) nearest to each of ``kept`` ``(m,)``; of two as near, the larger."""
    largest_first = allowed[::-1]
    return largest_first[np.abs(np.asarray(kept)[:, None] - largest_first).argmin(axis=1)]


def with_allowed_counts(
    masks: NDArray[np.bool_], scores: NDArray[np.floating], allowed: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Masks that keep an allowed number of filters, the nearest: never none.

    The filters that are added have the highest scores of those dropped; the filters that are taken away have
    the lowest of those kept.

    Args:
        masks: bool (m, f).
        scores: (f,); higher = keep.
        allowed: The counts, sorted, all above 0.

    Returns:
        bool (m, f); the same array where nothing had to be changed.
    """
    kept = masks.sum(axis=1)
    wanted = nearest_counts(kept, allowed)
    if np.array_equal(wanted, kept):
        return masks
    ranks = np.empty(masks.shape[1], dtype=np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(masks.shape[1])
    places = (ranks + np.where(masks, 0, masks.shape[1])).argsort(axis=1).argsort(axis=1)
    return places < wanted[:, None]

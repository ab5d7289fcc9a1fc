"""Which members of a population are better, on two objectives at once.

As in Dushatskiy et al. 2023, "Multi-Objective Population Based Training" (arXiv 2306.01436), members are
ranked by non-dominated fronts. Within a front the paper picks a scattered subset; here the larger hypervolume
contribution comes first, which is what the search is judged by.
"""

import math
from collections.abc import Sequence

from rlprune.results.frontier import Point, dominates, hypervolume

MARGIN = 0.1
"""How far the reference point lies beyond the worst coordinates, as a share of their range."""


def front_ranks(points: Sequence[Point]) -> list[int]:
    """The number of the non-dominated front of each point; both coordinates are minimised.

    Args:
        points: Finite coordinates.

    Returns:
        0 for the points that none dominates, 1 for those that only points of front 0 dominate, and so on.
    """
    ranks = [-1] * len(points)
    front = 0
    while -1 in ranks:
        left = [index for index, rank in enumerate(ranks) if rank == -1]
        for index in left:
            if not any(dominates(points[other], points[index]) for other in left):
                ranks[index] = front
        front += 1
    return ranks


def contributions(points: Sequence[Point], reference: Point) -> list[float]:
    """The area that each point alone dominates within the box below ``reference``.

    Args:
        points: Points of one front; a point that is there twice alone dominates nothing.
        reference: The worst corner of the box.
    """
    whole = hypervolume(points, reference)
    return [
        whole - hypervolume([*points[:index], *points[index + 1 :]], reference)
        for index in range(len(points))
    ]


def best_first(points: Sequence[Point]) -> list[int]:
    """The indices of points, the best first: by front, and within a front by hypervolume contribution.

    Coordinates are scaled to the range of all points, so that their units do not matter. Equals keep their
    order.

    Args:
        points: Finite coordinates, both minimised.
    """
    scaled = _scaled(points)
    ranks = front_ranks(points)
    worth = [0.0] * len(points)
    for front in set(ranks):
        members = [index for index, rank in enumerate(ranks) if rank == front]
        alone = contributions([scaled[index] for index in members], (1 + MARGIN, 1 + MARGIN))
        for index, area in zip(members, alone, strict=True):
            worth[index] = area
    return sorted(range(len(points)), key=lambda index: (ranks[index], -worth[index]))


def _scaled(points: Sequence[Point]) -> list[Point]:
    """The points with each coordinate between 0 and 1."""
    columns = list(zip(*points, strict=True))
    spans = [(min(column), (max(column) - min(column)) or math.inf) for column in columns]
    return [((x - spans[0][0]) / spans[0][1], (y - spans[1][0]) / spans[1][1]) for x, y in points]

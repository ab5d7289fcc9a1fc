"""Which type of node Ray's autoscaler starts: another one while the cloud has no machine of the first.

Neither of Ray's autoscalers does that by itself: when a cloud refuses a spot machine at once, as EC2 does
(``InsufficientInstanceCapacity``), they ask for the same type again and again. The older one counts the
refusals and lets a function of the user weigh the types, named by ``RAY_AUTOSCALER_UTILIZATION_SCORER``.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

ORDER = "RLPRUNE_NODE_TYPES"
"""The environment variable with the names of the types, the first one first, separated by commas."""

if TYPE_CHECKING:
    from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary


def prefer_available(
    node_resources: Mapping[str, float],
    resources: Sequence[Mapping[str, float]],
    node_type: str,
    *,
    node_availability_summary: "NodeAvailabilitySummary",
) -> tuple[Any, ...] | None:
    """How well a type of node fits what waits: the type with the greatest answer is started.

    Ray's own function alone would not do: it thinks less of a type that has a node already, whose memory it
    then knows to lie idle, than of an equal one without.

    Args:
        node_resources: What a node of the type has.
        resources: What waits, one mapping for each bundle.
        node_type: The name of the type.
        node_availability_summary: Which types the cloud has refused in the last half hour.

    Returns:
        Whether the cloud had such a machine when last asked, then the place in ``RLPRUNE_NODE_TYPES``, then
        what Ray's own function gives; None if nothing that waits fits.
    """
    from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer

    score = _default_utilization_scorer(
        node_resources, resources, node_type, node_availability_summary=node_availability_summary
    )
    if score is None:
        return None
    record = node_availability_summary.node_availabilities.get(node_type)
    order = os.environ.get(ORDER, "").split(",")
    place = order.index(node_type) if node_type in order else len(order)
    return (record is None or record.is_available, -place, *score)

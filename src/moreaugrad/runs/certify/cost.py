"""What certifying would cost."""

from __future__ import annotations

from moreaugrad.runs.certify.plan import PreparedCertify
from moreaugrad.runs.estimate import Cost, Estimate, seconds_per_evaluation
from moreaugrad.runs.network import fixed_threads


def estimate_certify(prepared: PreparedCertify) -> Estimate:
    """Times full passes of the first picture; nothing is written."""
    first = next(iter(prepared.curves.values()))
    with fixed_threads(prepared.network.compute.threads):
        each = seconds_per_evaluation(first, prepared.first, prepared.target)
    maps = len(prepared.cases)
    costs = tuple(
        Cost(key=key, maps=maps, evaluations=budget, seconds=maps * budget * each)
        for key, explainer in prepared.curves.items()
        for budget in [explainer.budget()]
    )
    return Estimate(inputs=maps, seconds_per_evaluation=each, costs=costs)

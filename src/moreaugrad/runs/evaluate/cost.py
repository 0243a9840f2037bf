"""What a run would cost."""

from __future__ import annotations

from moreaugrad.runs.estimate import Cost, Estimate, seconds_per_evaluation
from moreaugrad.runs.evaluate.meter import cost
from moreaugrad.runs.evaluate.prepare import PreparedEvaluate
from moreaugrad.runs.network import fixed_threads


def estimate_evaluate(prepared: PreparedEvaluate) -> Estimate:
    """Times full passes of the first picture; nothing is written.

    Of all processes together. Passes for a derivative of a map take longer than a gradient's, and
    metrics that ask the network take passes of their own.
    """
    first = next(iter(prepared.explainers.values()))
    with fixed_threads(prepared.network.compute.threads):
        each = seconds_per_evaluation(first, prepared.first, None)
    maps, costs = len(prepared.chosen), []
    for method, threats in prepared.threats.items():
        for threat in [None, *threats]:
            most = cost(prepared, method, threat)
            key = method if threat is None else f"{method}, {threat.title}"
            seconds = maps * most * each
            costs.append(Cost(key=key, maps=maps, evaluations=most, seconds=seconds))
    return Estimate(inputs=maps, seconds_per_evaluation=each, costs=tuple(costs))

"""How much of a map's largest entries stays under any perturbation of a given length.

Pure functions on maps and bounds, and `certify`, which runs an explainer.
"""

from moreaugrad.certificates.bounds import bounds, hoeffding_deviation
from moreaugrad.certificates.certify import (
    Certificate,
    certificate_of_moments,
    certify,
    check,
    estimate_of_explanation,
)
from moreaugrad.certificates.lipschitz import (
    LipschitzBound,
    lipschitz_bound,
    sampled_lipschitz,
)
from moreaugrad.certificates.moreau import (
    distance_within,
    overlap_within,
    probability_curvature,
    smoothed_curvature,
    sparse_lipschitz,
    vanilla_lipschitz,
)
from moreaugrad.certificates.smoothed import overlap_of_bounds, radii_against_rank

__all__ = [
    "Certificate",
    "LipschitzBound",
    "bounds",
    "certificate_of_moments",
    "certify",
    "check",
    "distance_within",
    "estimate_of_explanation",
    "hoeffding_deviation",
    "lipschitz_bound",
    "overlap_of_bounds",
    "overlap_within",
    "probability_curvature",
    "radii_against_rank",
    "sampled_lipschitz",
    "smoothed_curvature",
    "sparse_lipschitz",
    "vanilla_lipschitz",
]

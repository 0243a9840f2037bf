from .certify import (
    Certificate as Certificate,
    certificate_of_moments as certificate_of_moments,
    certify as certify,
    check as check,
    estimate_of_explanation as estimate_of_explanation,
)
from .lipschitz import (
    LipschitzBound as LipschitzBound,
    lipschitz_bound as lipschitz_bound,
    sampled_lipschitz as sampled_lipschitz,
)
from .moreau import (
    distance_within as distance_within,
    overlap_within as overlap_within,
    probability_curvature as probability_curvature,
    smoothed_curvature as smoothed_curvature,
    sparse_lipschitz as sparse_lipschitz,
    vanilla_lipschitz as vanilla_lipschitz,
)
from .smoothed import (
    bounds as bounds,
    hoeffding_deviation as hoeffding_deviation,
    overlap_of_bounds as overlap_of_bounds,
    radii_against_rank as radii_against_rank,
)

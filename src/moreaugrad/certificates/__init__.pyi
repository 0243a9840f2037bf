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
from .overlap import (
    bounds as bounds,
    distance_within as distance_within,
    hoeffding_deviation as hoeffding_deviation,
    overlap_of_bounds as overlap_of_bounds,
    overlap_within as overlap_within,
    probability_curvature as probability_curvature,
    radii_against_rank as radii_against_rank,
    smoothed_curvature as smoothed_curvature,
    sparse_lipschitz as sparse_lipschitz,
    vanilla_lipschitz as vanilla_lipschitz,
)
from .pixels import (
    PixelCertificate as PixelCertificate,
    certify_pixels as certify_pixels,
    check_votes as check_votes,
)
from .votes import holm as holm, vote_radii as vote_radii

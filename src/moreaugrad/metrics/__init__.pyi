from .captum import Near as Near, infidelity as infidelity, max_sensitivity as max_sensitivity
from .catalogue import KINDS as KINDS, METRICS as METRICS, Metric as Metric, build as build
from .faithfulness import (
    Replacement as Replacement,
    aopc as aopc,
    area as area,
    deletion as deletion,
    deletion_curve as deletion_curve,
    drop_curve as drop_curve,
    insertion as insertion,
    insertion_curve as insertion_curve,
)
from .localisation import (
    Confusion as Confusion,
    auroc as auroc,
    average_precision as average_precision,
    binary as binary,
    binary_confusion as binary_confusion,
    five_band as five_band,
    five_band_confusion as five_band_confusion,
    five_band_sweep as five_band_sweep,
    gaze_overlap as gaze_overlap,
    pointing_game as pointing_game,
)
from .maps import Aggregate as Aggregate, aggregate as aggregate
from .places import Regions as Regions
from .roar import (
    DiffRoar as DiffRoar,
    diffroar as diffroar,
    importance_ranks as importance_ranks,
    keep as keep,
)
from .sanity import Randomised as Randomised, randomisation as randomisation
from .similarity import (
    Window as Window,
    cosine as cosine,
    mass_centre_shift as mass_centre_shift,
    normalised_distance as normalised_distance,
    pearson as pearson,
    spearman as spearman,
    ssim as ssim,
)
from .sparsity import (
    dice as dice,
    entropy as entropy,
    gini as gini,
    jaccard as jaccard,
    top_k_intersection as top_k_intersection,
    top_k_ties as top_k_ties,
    zeros as zeros,
)
from .stability import soft_stability as soft_stability, stability_bounds as stability_bounds

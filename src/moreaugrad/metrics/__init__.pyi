from .bands import (
    Confusion as Confusion,
    binary as binary,
    binary_confusion as binary_confusion,
    five_band as five_band,
    five_band_confusion as five_band_confusion,
    five_band_sweep as five_band_sweep,
)
from .captum import Near as Near, infidelity as infidelity, max_sensitivity as max_sensitivity
from .catalogue import KINDS as KINDS, METRICS as METRICS, Metric as Metric, build as build
from .faithfulness import (
    aopc as aopc,
    area as area,
    deletion as deletion,
    deletion_curve as deletion_curve,
    drop_curve as drop_curve,
    insertion as insertion,
    insertion_curve as insertion_curve,
)
from .localisation import (
    auroc as auroc,
    average_precision as average_precision,
    gaze_overlap as gaze_overlap,
    pointing_game as pointing_game,
)
from .maps import Aggregate as Aggregate, aggregate as aggregate
from .overlap import (
    dice as dice,
    jaccard as jaccard,
    top_k_intersection as top_k_intersection,
    top_k_ties as top_k_ties,
)
from .perturbation import Replacement as Replacement
from .roar import (
    DiffRoar as DiffRoar,
    diffroar as diffroar,
    importance_ranks as importance_ranks,
    keep as keep,
)
from .sanity import Randomised as Randomised, randomisation as randomisation
from .similarity import (
    cosine as cosine,
    mass_centre_shift as mass_centre_shift,
    normalised_distance as normalised_distance,
    pearson as pearson,
    spearman as spearman,
)
from .sparsity import entropy as entropy, gini as gini, zeros as zeros
from .structure import Window as Window, ssim as ssim

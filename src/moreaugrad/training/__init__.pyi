from .adversaries import (
    Fast as Fast,
    Free as Free,
    Iterative as Iterative,
    Momentum as Momentum,
)
from .baselines import GaussianNoise as GaussianNoise, Penalised as Penalised, Plain as Plain
from .catalogue import PROTOCOLS as PROTOCOLS, build as build
from .harmonisation import (
    GuidedPenalty as GuidedPenalty,
    Harmonisation as Harmonisation,
    PublishedHarmonisation as PublishedHarmonisation,
)
from .inner import (
    LOSSES as LOSSES,
    ConditionalGradient as ConditionalGradient,
    NormalisedAscent as NormalisedAscent,
    PerSampleLoss as PerSampleLoss,
    ProjectedGradient as ProjectedGradient,
    ProjectedMaximiser as ProjectedMaximiser,
    Update as Update,
    cross_entropy as cross_entropy,
    hinge as hinge,
)
from .protocol import (
    Adversary as Adversary,
    OvershootWarning as OvershootWarning,
    Perturbation as Perturbation,
    Protocol as Protocol,
    Round as Round,
)

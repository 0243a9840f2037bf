from .adversaries import (
    ConditionalGradient as ConditionalGradient,
    Fast as Fast,
    Iterative as Iterative,
    Momentum as Momentum,
    NormalisedAscent as NormalisedAscent,
    ProjectedGradient as ProjectedGradient,
    ProjectedMaximiser as ProjectedMaximiser,
    Update as Update,
)
from .baselines import GaussianNoise as GaussianNoise, Penalised as Penalised, Plain as Plain
from .catalogue import PROTOCOLS as PROTOCOLS, build as build
from .free import Free as Free
from .harmonisation import (
    GuidedPenalty as GuidedPenalty,
    Harmonisation as Harmonisation,
    PublishedHarmonisation as PublishedHarmonisation,
)
from .inner import (
    LOSSES as LOSSES,
    PerSampleLoss as PerSampleLoss,
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

from .baselines import GaussianNoise as GaussianNoise, Plain as Plain
from .catalogue import PROTOCOLS as PROTOCOLS, build as build
from .fast import Fast as Fast
from .free import Free as Free
from .harmonisation import (
    GuidedPenalty as GuidedPenalty,
    Harmonisation as Harmonisation,
    PublishedHarmonisation as PublishedHarmonisation,
)
from .iterative import Iterative as Iterative, Momentum as Momentum
from .losses import (
    LOSSES as LOSSES,
    PerSampleLoss as PerSampleLoss,
    cross_entropy as cross_entropy,
    hinge as hinge,
)
from .penalised import Penalised as Penalised
from .protocol import (
    Adversary as Adversary,
    OvershootWarning as OvershootWarning,
    Perturbation as Perturbation,
    Protocol as Protocol,
    Round as Round,
)
from .updates import (
    ConditionalGradient as ConditionalGradient,
    NormalisedAscent as NormalisedAscent,
    ProjectedGradient as ProjectedGradient,
    ProjectedMaximiser as ProjectedMaximiser,
    Update as Update,
)

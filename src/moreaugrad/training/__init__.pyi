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
    PerSampleLoss as PerSampleLoss,
    cross_entropy as cross_entropy,
    hinge as hinge,
)
from .penalty import Adversary as Adversary, OvershootWarning as OvershootWarning
from .protocol import PerturbingProtocol as PerturbingProtocol, Protocol as Protocol
from .rounds import Perturbation as Perturbation, Round as Round
from .updates import (
    ConditionalGradient as ConditionalGradient,
    NormalisedAscent as NormalisedAscent,
    ProjectedGradient as ProjectedGradient,
    ProjectedMaximiser as ProjectedMaximiser,
    Update as Update,
)

from .anytime import Frame as Frame
from .base import Explainer as Explainer
from .cafo import CAFO as CAFO, SmoothCAFO as SmoothCAFO
from .caso import CASO as CASO, SmoothCASO as SmoothCASO
from .catalogue import METHODS as METHODS, build as build
from .deeplift import DeepLift as DeepLift
from .explanation import ConvergenceWarning as ConvergenceWarning, Explanation as Explanation
from .expected import ExpectedGradients as ExpectedGradients
from .feature_visualisation import (
    Ascent as Ascent,
    activation_maximisation as activation_maximisation,
)
from .gradcam import GradCAM as GradCAM
from .gradient import (
    SimpleGradient as SimpleGradient,
    SmoothGrad as SmoothGrad,
)
from .guidance import (
    Guidance as Guidance,
    RhoGuidance as RhoGuidance,
    guidance as guidance,
    paper_rho as paper_rho,
    rho_guidance as rho_guidance,
)
from .interactions import Interactions as Interactions, interactions as interactions
from .moreau import (
    GroupSparseMoreauGrad as GroupSparseMoreauGrad,
    Moreau as Moreau,
    MoreauGrad as MoreauGrad,
    SparseMoreauGrad as SparseMoreauGrad,
)
from .path import IntegratedGradients as IntegratedGradients
from .published import PublishedMoreauGrad as PublishedMoreauGrad
from .relex import RelEx as RelEx
from .sparsified import SparsifiedSmoothGrad as SparsifiedSmoothGrad

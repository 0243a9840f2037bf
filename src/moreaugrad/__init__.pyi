from . import (
    attacks as attacks,
    certificates as certificates,
    data as data,
    explainers as explainers,
    metrics as metrics,
    models as models,
    penalties as penalties,
    table as table,
    targets as targets,
    text as text,
    training as training,
)
from .attacks.base import Attack as Attack
from .curvature.relu import ReLUHessian as ReLUHessian, relu_hessian as relu_hessian
from .data.images import load_image as load_image
from .explainers.base import Explainer as Explainer
from .explainers.path import IntegratedGradients as IntegratedGradients
from .explainers.cafo import CAFO as CAFO, SmoothCAFO as SmoothCAFO
from .explainers.caso import CASO as CASO, SmoothCASO as SmoothCASO
from .explainers.catalogue import METHODS as METHODS, build as build
from .explainers.deeplift import DeepLift as DeepLift
from .explainers.explanation import (
    ConvergenceWarning as ConvergenceWarning,
    Explanation as Explanation,
)
from .explainers.expected import ExpectedGradients as ExpectedGradients
from .explainers.feature_visualisation import (
    Ascent as Ascent,
    activation_maximisation as activation_maximisation,
)
from .explainers.gradcam import GradCAM as GradCAM
from .explainers.gradient import (
    SimpleGradient as SimpleGradient,
    SmoothGrad as SmoothGrad,
)
from .explainers.guidance import (
    Guidance as Guidance,
    RhoGuidance as RhoGuidance,
    guidance as guidance,
    paper_rho as paper_rho,
    rho_guidance as rho_guidance,
)
from .explainers.interactions import (
    Interactions as Interactions,
    interactions as interactions,
)
from .explainers.moreau import (
    GroupSparseMoreauGrad as GroupSparseMoreauGrad,
    Moreau as Moreau,
    MoreauGrad as MoreauGrad,
    SparseMoreauGrad as SparseMoreauGrad,
)
from .explainers.published import PublishedMoreauGrad as PublishedMoreauGrad
from .explainers.relex import RelEx as RelEx
from .explainers.sparsified import SparsifiedSmoothGrad as SparsifiedSmoothGrad
from .files.maps import read_maps as read_maps
from .models.batches import BatchExplainer as BatchExplainer
from .models.fast import Optimised as Optimised, optimise as optimise
from .models.loading import load_model as load_model
from .penalties.base import Penalty as Penalty, Zero as Zero
from .penalties.groups import GroupL2 as GroupL2
from .penalties.separable import (
    L1 as L1,
    Box as Box,
    ElasticNet as ElasticNet,
    SquaredL2 as SquaredL2,
    WeightedL2 as WeightedL2,
)
from .pictures.plot import plot_maps as plot_maps
from .reports.watch import Watch as Watch
from .runs.advice import Recommendation as Recommendation, recommend as recommend
from .runs.notebook import (
    Results as Results,
    compare as compare,
    evaluate as evaluate,
    explain as explain,
    report as report,
)
from .score.noise import Noise as Noise
from .score.inputs import InputSpace as InputSpace
from .score.score import Score as Score
from .curvature.second_derivatives import softplus_surrogate as softplus_surrogate
from .solvers.solution import Status as Status

__version__: str

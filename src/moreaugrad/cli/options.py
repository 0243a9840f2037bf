"""The options that commands share, declared once. None: not given, so the configuration decides."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

MODEL, METHOD, COMPUTE, OUTPUT = "Model", "Explanation", "Computation", "Output"
CERTIFY, DATA, EVALUATE = "Certificate", "Data", "Evaluation"
AUGMENT, PROTOCOL, OPTIMISE = "Augmentation", "Protocol", "Optimisation"


def _option(*names: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, show_default=False, **more)


Model = functools.partial(_option, panel=MODEL)
Method = functools.partial(_option, panel=METHOD)
Compute = functools.partial(_option, panel=COMPUTE)
Output = functools.partial(_option, panel=OUTPUT)
Data = functools.partial(_option, panel=DATA)
Evaluate = functools.partial(_option, panel=EVALUATE)
Certify = functools.partial(_option, panel=CERTIFY)
Augment = functools.partial(_option, panel=AUGMENT)
Protocol = functools.partial(_option, panel=PROTOCOL)
Optimise = functools.partial(_option, panel=OPTIMISE)


TRUST = "Run code that a file names: module:factory of a configuration, or of a trained network."

Beside = Annotated[
    str | None,
    Model("--beside", help="A second network, named as --model is, explained by the same methods."),
]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command that works on pictures has."""

    model: Annotated[
        str | None,
        Model(help="The network: torchvision:NAME, timm:NAME, hf:NAME, trained:FOLDER, "
              "python.module:factory, or builtin, a classifier of synthetic cells "
              "\\[required, here or in --config]"),
    ] = None  # fmt: skip
    weights: Annotated[Path | None, Model(help="Safetensors file, or a checkpoint of weights.")] = (
        None
    )
    labels: Annotated[Path | None, Model(help="File with a class name a line, or JSON.")] = None
    trust: Annotated[bool, Model("--trust", help=TRUST)] = False
    resize: Annotated[
        str | None, Model(help="Shorter side of the picture, or HEIGHT,WIDTH, before the crop.")
    ] = None
    crop: Annotated[str | None, Model(help="Side of the centre crop, or HEIGHT,WIDTH.")] = None
    mean: Annotated[str | None, Model(help="R,G,B that is subtracted; colours lie in 0 to 1.")] = (
        None
    )
    std: Annotated[str | None, Model(help="R,G,B that is divided by.")] = None
    interpolation: Annotated[str | None, Model(help="Of the resize: bilinear, bicubic, ...")] = None

    target: Annotated[
        str | None,
        Method("--target", "-t", help="Class to explain, by index or label "
               "\\[default: the predicted one]"),
    ] = None  # fmt: skip
    seed: Annotated[int | None, Method(help="Of the noise.")] = None

    device: Annotated[
        str | None, Compute(help="cpu, cuda, cuda:1, mps or auto \\[default: auto].")
    ] = None
    dtype: Annotated[str | None, Compute(help="float32, float64 or bfloat16 (the network).")] = None
    batch_size: Annotated[
        str | None, Compute(help="Network passes at once, or auto; halved when memory runs out.")
    ] = None
    threads: Annotated[int | None, Compute(help="Of the processor.")] = None
    channels_last: Annotated[
        bool | None,
        Compute("--channels-last/--channels-first",
                help="Memory layout of the network \\[default: last on a processor]."),
    ] = None  # fmt: skip
    fold_batchnorm: Annotated[
        bool | None,
        Compute("--fold-batchnorm/--keep-batchnorm",
                help="Fold batch normalisation into convolutions \\[default: on a processor]."),
    ] = None  # fmt: skip

    out: Annotated[Path | None, Output("--out", "-o", help="Folder for the results.")] = None
    overwrite: Annotated[
        bool, Output("--overwrite", help="Replace the results of another configuration.")
    ] = False
    dry_run: Annotated[
        bool, Output("--dry-run", help="Tell evaluations and time from a short timing; write "
                     "nothing.")
    ] = False  # fmt: skip
    json: Annotated[bool, Output("--json", help="A summary for scripts on standard output.")] = (
        False
    )
    quiet: Annotated[bool, Output("--quiet", "-q", help="No progress, no summary.")] = False


@dataclass(frozen=True, kw_only=True)
class MethodOptions(Common):
    """Settings of methods."""

    score: Annotated[
        str | None,
        Method(help="logit, log-probability, probability, margin or cross-entropy."),
    ] = None
    task: Annotated[
        str | None, Method(help="auto, multiclass, binary, multilabel or regression.")
    ] = None
    layer: Annotated[
        str | None, Method(help="Explain the output of this module instead of the input.")
    ] = None
    rho: Annotated[float | None, Method(help="Reach of the Moreau envelope.")] = None
    eta: Annotated[
        str | None, Method(help="Weight of the penalty, a number or 'auto' (see --sparsity).")
    ] = None
    sparsity: Annotated[
        float | None, Method(help="Share of zeros that an automatic eta gives.")
    ] = None
    sigma: Annotated[
        float | None, Method(help="Gaussian smoothing, as a share of the input's range; 0: none.")
    ] = None
    group: Annotated[
        str | None,
        Method(help="Side of the blocks of group-sparse methods, or HEIGHT,WIDTH, or 'blocks'."),
    ] = None
    tolerance: Annotated[float | None, Method(help="Relative error at which a map is done.")] = None
    max_evaluations: Annotated[
        int | None, Method(help="Gradient evaluations at which it stops short of that.")
    ] = None
    check: Annotated[
        bool | None,
        Method("--check/--no-check",
               help="Refuse a network that is random, or whose outputs depend on the other inputs "
               "of a batch \\[default: check]"),
    ] = None  # fmt: skip
    set: Annotated[
        list[str] | None,
        Method("--set", metavar="[METHOD.]NAME=VALUE",
               help="Any setting that `moreaugrad methods` lists; can be repeated."),
    ] = None  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options(MethodOptions):
    """What `explain`, `compare` and `sweep` have in common."""

    export: Annotated[
        list[str] | None, Output(help="Maps in this format too: npy or csv; can be repeated.")
    ] = None
    config: Annotated[
        Path | None,
        Output("--config", "-c", help="TOML file of a job, as each result holds one; what is "
               "given here goes before it."),
    ] = None  # fmt: skip
    page_images: Annotated[
        int | None,
        Output(help="How many inputs the page shows \\[default: 24]. Up to 32 inputs and 128 maps "
               "it is a single file; the images of a larger page are files in index_files/ next to "
               "it."),
    ] = None  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CertifyOptions(Common):
    """Of `certify`. sigma and radii are in the network's input units."""

    sigma: Annotated[
        float | None,
        Certify(help="Standard deviation of the noise, in the network's input units, after the "
                "preprocessing; necessary."),
    ] = None  # fmt: skip
    radii: Annotated[
        str | None,
        Certify(help="L2 lengths of perturbations, in the same units, separated by commas "
                "\\[default: by sigma]."),
    ] = None  # fmt: skip
    top: Annotated[
        float | None,
        Certify(help="Share of a map's entries whose overlap is certified \\[default: 0.1]."),
    ] = None
    samples: Annotated[
        int | None, Certify(help="Draws of noise for each map \\[default: 1024].")
    ] = None
    statement: Annotated[
        str | None,
        Certify(help="The map at the perturbed input: population (its exact mean) or two-sample "
                "(as many fresh draws) \\[default: population]."),
    ] = None  # fmt: skip
    confidence: Annotated[
        float | None, Certify(help="Of each picture's certificates \\[default: 0.95].")
    ] = None
    bound: Annotated[
        str | None,
        Certify(help="auto, hoeffding, clopper-pearson (the relaxed variant then has auto) or "
                "bernstein \\[default: auto]."),
    ] = None  # fmt: skip
    rho: Annotated[
        float | None,
        Certify(help="Of MoreauGrad, below 2.07 sigma^2 \\[default: half of that]."),
    ] = None
    sparsity: Annotated[
        float | None, Certify(help="Share of zeros of Sparse MoreauGrad \\[default: 0.9].")
    ] = None
    tau: Annotated[
        float | None,
        Certify(help="Share of a gradient's entries that Sparsified SmoothGrad counts "
                "\\[default: 0.1]."),
    ] = None  # fmt: skip
    gamma: Annotated[
        float | None,
        Certify(help="Share of them that the relaxed variant counts fully \\[default: 0.01]."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(MethodOptions):
    """Of `evaluate`. What is not given is the configuration's."""

    data: Annotated[
        Path | None,
        Data(help="Folder of pictures, or a zip of one; ImageNet, Tiny-ImageNet and CIFAR-10 as "
             "they are distributed."),
    ] = None  # fmt: skip
    layout: Annotated[
        str | None,
        Data(help="cifar10, tiny-imagenet, listed, imagenet or folders \\[default: auto]."),
    ] = None
    split: Annotated[
        str | None,
        Data(help="val, test or train \\[default: the first of these that there is]."),
    ] = None
    samples: Annotated[
        int | None, Data(help="How many pictures, chosen by --seed \\[default: all].")
    ] = None
    unreadable: Annotated[
        float | None,
        Data(help="Share of unreadable pictures from which on the run fails \\[default: 0.1]."),
    ] = None

    methods: Annotated[str | None, Evaluate(help="a,b; or all; or all,-a for all but a.")] = None
    metrics: Annotated[
        str | None,
        Evaluate(help="a,b; or all \\[default: normalised-distance, top-k, ssim, gini, zeros]."),
    ] = None
    attack: Annotated[
        list[str] | None,
        Evaluate("--attack", metavar="[LABEL=]NAME[:SETTING=VALUE,...]",
                 help="top-k, mass-centre, gaussian, ...; can be repeated. Settings besides its "
                 "own: source=METHOD, surrogate=BETA, epsilons=[...], over=SETTING."),
    ] = None  # fmt: skip
    epsilons: Annotated[
        str | None, Evaluate(help="Budgets of the attacks, separated by commas.")
    ] = None
    norm: Annotated[str | None, Evaluate(help="Of the budgets: l2 or linf.")] = None
    units: Annotated[
        str | None,
        Evaluate(help="Of the budgets: input (after the preprocessing) or pixel (0 to 1)."),
    ] = None
    block: Annotated[
        int | None,
        Evaluate(help="Pictures of a unit of work, which is redone when interrupted "
                 "\\[default: 4]."),
    ] = None  # fmt: skip
    maps: Annotated[
        int | None, Evaluate(help="Keep the maps of so many pictures \\[default: all].")
    ] = None
    config: Annotated[
        Path | None,
        Output("--config", "-c", help="TOML file of an evaluation, as each run holds one; what is "
               "given here goes before it."),
    ] = None  # fmt: skip


def with_options(command: Callable[..., int]) -> Callable[..., int]:
    """Declares the fields of an options class as options of a command, which gets them as one
    object.

    The class is that of the command's last parameter, `options`; typer reads signatures, so it is
    shown one with the fields in its place.
    """
    own = list(inspect.signature(command).parameters.values())[:-1]
    hints = get_type_hints(command, include_extras=True)
    made = hints["options"]
    shared = get_type_hints(made, include_extras=True)
    fields = dataclasses.fields(made)
    parameters = [item.replace(annotation=hints[item.name]) for item in own] + [
        inspect.Parameter(
            item.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=item.default,
            annotation=shared[item.name],
        )
        for item in fields
    ]

    @functools.wraps(command)
    def shown(*args: Any, **given: Any) -> int:
        options = made(**{item.name: given.pop(item.name) for item in fields})
        return command(*args, **given, options=options)

    shown.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    shown.__annotations__ = {item.name: item.annotation for item in parameters}
    return shown

"""The commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moreaugrad import __version__
from moreaugrad.cli.codes import DONE
from moreaugrad.cli.data import data
from moreaugrad.cli.options import Beside, CertifyOptions, EvaluateOptions, Options, with_options
from moreaugrad.cli.retrain import retrain
from moreaugrad.cli.sanity import SanityOptions, perform_sanity
from moreaugrad.cli.train_options import TrainOptions
from moreaugrad.cli.visualise import VisualiseOptions, perform_visualise

app = typer.Typer(
    name="moreaugrad",
    help="Sparse, stable and checked gradient explanations of image classifiers.",
    epilog="Exit codes: 0 done, 1 some inputs or methods left out, 2 bad input; 130, 143 or 129 "
    "interrupted by Ctrl-C, SIGTERM or SIGHUP.",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=True,
)

app.add_typer(data, name="data")
app.add_typer(retrain, name="retrain")

Images = Annotated[
    list[str] | None,
    typer.Argument(metavar="IMAGE...", help="Pictures, folders or globs.", show_default=False),
]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> int:
    if version:
        typer.echo(f"moreaugrad {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    return DONE


@app.command()
@with_options
def explain(
    images: Images = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            help="See `moreaugrad methods` \\[default: sparse-moreaugrad]",
            show_default=False,
        ),
    ] = None,
    beside: Beside = None,
    *,
    options: Options,
) -> int:
    """Explain pictures by one method.

    moreaugrad explain cat.jpg --model torchvision:resnet50 --out cat
    """
    from moreaugrad.cli.commands import perform
    from moreaugrad.cli.jobs import explain_job

    usual = None if options.config else ["sparse-moreaugrad"]
    chosen = usual if method is None else [method]
    return perform(explain_job(images or (), chosen, options, beside), options)


@app.command()
@with_options
def compare(
    images: Images = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="a,b; or all; or all,-a for all but a \\[default: all, without the "
            "published algorithm]",
            show_default=False,
        ),
    ] = None,
    beside: Beside = None,
    *,
    options: Options,
) -> int:
    """Explain pictures by several methods, side by side.

    moreaugrad compare photos/ --model torchvision:squeezenet1_0 --methods all --out photos-maps
    """
    from moreaugrad.cli.commands import perform
    from moreaugrad.cli.jobs import explain_job, method_names

    usual = None if options.config else "all,-published-moreaugrad"
    names = usual if methods is None else methods
    chosen = None if names is None else method_names(names)
    return perform(explain_job(images or (), chosen, options, beside), options)


@app.command()
@with_options
def sweep(
    images: Images = None,
    over: Annotated[str, typer.Option(help="rho, eta, sigma or another numeric setting.")] = "eta",
    values: Annotated[
        str | None,
        typer.Option(
            help="Numbers, separated by commas; 0 is shown as the limit \\[default: usual ones].",
            show_default=False,
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", "-m")] = "sparse-moreaugrad",
    *,
    options: Options,
) -> int:
    """Explain a picture at several values of a setting; the page has a slider over them.

    moreaugrad sweep cat.jpg --model torchvision:resnet50 --over rho --values 0,0.3,1 --out cat-rho
    """
    from moreaugrad.cli.commands import perform
    from moreaugrad.cli.jobs import sweep_job
    from moreaugrad.cli.values import numbers

    chosen = numbers("values", values) if values else ()
    job = sweep_job(images or (), method, over, chosen, options)
    return perform(job, options)


@app.command()
@with_options
def certify(
    images: Images = None,
    *,
    options: CertifyOptions,
) -> int:
    """Certify how much of a map's top stays under any perturbation.

    Sparsified SmoothGrad's certificates beside estimates for MoreauGrad, by the L2 length.

    moreaugrad certify cat.jpg --model torchvision:resnet50 --sigma 0.5 --out cat-certified
    """
    from moreaugrad.cli.commands import perform_certify
    from moreaugrad.cli.jobs import certify_plan

    return perform_certify(certify_plan(images or (), options), options)


@app.command()
@with_options
def evaluate(*, options: EvaluateOptions) -> int:
    """Measure how robust, sparse and faithful maps are, over a data set and under attacks.

    moreaugrad evaluate --data photos/ --model torchvision:resnet50
    --methods smoothgrad,sparse-moreaugrad --attack top-k --epsilons 0.5,1 --samples 50 --out run

    Interrupted and started again, it goes on where it was. More processes share the work:
    torchrun --nproc-per-node 2 -m moreaugrad evaluate ...
    """
    from moreaugrad.cli.commands import perform_evaluate
    from moreaugrad.cli.evaluated import evaluate_plan

    return perform_evaluate(evaluate_plan(options), options)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of evaluate.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the page and the tables.")],
    confidence: Annotated[
        float, typer.Option(help="Confidence of the intervals over pictures (Student's t).")
    ] = 0.95,
    gallery: Annotated[
        int,
        typer.Option(help="Images whose maps are shown. Those of a page of more than 32 images or "
                     "128 maps are files in index_files/ next to it."),
    ] = 4,
    base: Annotated[
        list[str] | None,
        typer.Option(metavar="[METHOD=]BASE", show_default=False,
                     help="What a method is made of: tells the share of the base's AOPC that it "
                     "loses; can be repeated."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a report of other runs or settings.")
    ] = False,
) -> int:  # fmt: skip
    """Draw runs of evaluate: tables with intervals, robustness curves, maps before and after.

    moreaugrad report run --out page
    """
    from moreaugrad.cli.commands import perform_report

    return perform_report(
        runs, out, confidence=confidence, gallery=gallery,
        overwrite=overwrite, base=base or (),
    )  # fmt: skip


@app.command()
@with_options
def train(*, options: TrainOptions) -> int:
    """Train a network, so that its plain gradient is sparse, smooth or where it should be.

    moreaugrad train --data cells --protocol fast --penalty l1 --epsilon 0.02 --out run

    Interrupted and started again, it goes on from its last checkpoint. More processes share the
    work: torchrun --nproc-per-node 2 -m moreaugrad train ...
    """
    from moreaugrad.cli.commands import perform_train
    from moreaugrad.cli.training import train_plan

    return perform_train(train_plan(options), options)


@app.command()
@with_options
def sanity(*, options: SanityOptions) -> int:
    """Compare maps with those of copies of the network whose weights are redrawn.

    moreaugrad sanity --data photos/ --model torchvision:squeezenet1_0 --out photos-sanity
    """
    return perform_sanity(options)


@app.command()
@with_options
def visualise(*, options: VisualiseOptions) -> int:
    """Draw what a network looks for: pictures that raise the score of each class.

    moreaugrad visualise --model builtin --set jitter=2 --set blur=0.5 --out looks
    """
    return perform_visualise(options)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="One of them, in detail.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> int:
    """List the methods with their settings, or explain the settings of one."""
    from moreaugrad.cli.methods import list_methods

    list_methods(name, as_json=json)
    return DONE


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "moreaugrad-demo"
    ),
    json: Annotated[bool, typer.Option("--json", help="A summary for scripts.")] = False,
) -> int:
    """Explain synthetic cells by the built-in networks, offline, and score the maps.

    The true map of each cell is known. Takes about a minute.
    """
    from moreaugrad.cli.commands import perform
    from moreaugrad.runs import demo_job

    return perform(
        demo_job(), Options(out=out, json=json, overwrite=(out / "config.toml").exists())
    )

"""The table of commands: the plan of each, the run that it is, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from moreaugrad.runs.plans.common import TRUST
from moreaugrad.runs.plans.option import Option, Plan, option, options

_PLANS, _RUNS, _CALLS = "moreaugrad.runs.plans.", "moreaugrad.runs.", "moreaugrad.cli.perform:"


@dataclass(frozen=True, kw_only=True)
class CommonOptions(Plan):
    """What every command that writes a folder has besides its plan."""

    GROUP: ClassVar[str] = "Output"

    out: str | None = option(
        None, "Folder for the results.", "--out", "-o", shown="required", metavar="FOLDER"
    )
    overwrite: bool = option(False, "Replace the results of another configuration.")
    config: str | None = option(
        None, "TOML file of a run, as each folder of results holds one; options given here "
        "replace its values.", "--config", "-c", metavar="FILE",
    )  # fmt: skip
    trust: bool = option(False, TRUST)
    dry_run: bool = option(
        False, "Estimate the gradient evaluations and the time from a short timing; write nothing."
    )
    shard: str | None = option(
        None, "Do every N-th unit of work, from the I-th on, counted from 0: one of N commands, "
        "started at any time, that share a folder.", metavar="I/N", group="Computation",
    )  # fmt: skip
    open: bool = option(False, "Open the page in a browser once there is something to look at.")
    yes: bool = option(
        False,
        "Do not ask for confirmation when the maps take longer than ten minutes.",
        "--yes",
        "-y",
    )
    json: bool = option(False, "Print a summary for scripts, as JSON.")
    quiet: bool = option(False, "Print no progress and no summary.", "--quiet", "-q")

    @property
    def folder(self) -> Path:
        """Errors: ValueError where none is given."""
        if self.out is None:
            raise ValueError("--out: expected a folder for the results, got none")
        return Path(self.out)


@dataclass(frozen=True, kw_only=True)
class Command:
    """plan, run: "module:Class"; the run is made of the plan, the processes and a watch. call:
    instead of a run, "module:function" of the plan and the common options.

    help: the first line, in the list of commands. more: what follows it. hidden: fields of the plan
    that are no options here. usual: options where neither the command line nor a configuration
    names methods; usual_of: those of other kinds of inputs than images. adapt: "module:function"
    from the plan to the one that is run. named: whether the run takes the name of the command and
    the words of the command line.
    """

    plan: str
    run: str = ""
    call: str = ""
    help: str
    more: str
    hidden: tuple[str, ...] = ()
    usual: Mapping[str, Any] = field(default_factory=dict)
    usual_of: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    adapt: str = ""
    named: bool = False
    without: tuple[str, ...] = ()
    """Options of `CommonOptions` that it does not have, apart from those of runs and previews."""
    previews: bool = False
    """Whether it makes maps to look at first, and a folder of its own."""

    def plan_class(self) -> type[Plan]:
        found: type[Plan] = loaded(self.plan)
        return found

    @property
    def lacking(self) -> tuple[str, ...]:
        asks, runs = () if self.previews else ("yes",), OF_RUNS if self.call else ()
        return (*self.without, *asks, *runs)

    def options(self) -> list[Option]:
        """Those of its plan, and the common ones that it has."""
        every = (options(self.plan_class(), self.hidden), options(CommonOptions, self.lacking))
        found = [option for some in every for _, option in some]
        if self.previews:
            found = [replace(o, default=FOLDER) if o.name == "--out" else o for o in found]
        return found


OF_RUNS = ("config", "trust", "dry_run", "shard")
"""Common options that need a run of a plan."""


def loaded(name: str) -> Any:
    """What "module:name" names."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


FOLDER = "moreaugrad-COMMAND-XXXX, by the options"
COMPARED = (
    "simple-gradient", "smoothgrad", "integrated-gradients", "grad-cam", "caso",
    "sparse-moreaugrad",
)  # fmt: skip
TEXTS_COMPARED = (
    "simple-gradient", "smoothgrad", "integrated-gradients", "group-sparse-moreaugrad",
)  # fmt: skip
ARRAYS_COMPARED = (
    "simple-gradient", "smoothgrad", "integrated-gradients", "sparse-moreaugrad",
)  # fmt: skip
"""What `compare` compares by default, of images, of texts, and of series and volumes."""
RESUMED = (
    "Interrupted and started again, it resumes. Several processes share the work: torchrun "
    "--nproc-per-node 2 -m moreaugrad {} ..."
)

COMMANDS: dict[str, Command] = {
    "explain": Command(
        plan=f"{_PLANS}explain:ExplainPlan", run=f"{_RUNS}maps.run:MapsRun", named=True,
        help="Explain images, texts, series or volumes with one or more methods.",
        more="moreaugrad explain cat.jpg --model torchvision:resnet50 --out cat\n\nmoreaugrad "
        'explain --text "A great film." --model hf:sentiment --out film\n\n'
        "moreaugrad explain yes.wav --model keywords:network --shape 16000 --rate 16000 --out yes",
        hidden=("sweep",), usual={"--methods": "sparse-moreaugrad"},
        usual_of={"texts": {"--methods": "group-sparse-moreaugrad"}}, previews=True,
    ),
    "compare": Command(
        plan=f"{_PLANS}explain:ExplainPlan", run=f"{_RUNS}maps.run:MapsRun", named=True,
        help="Explain images, texts, series or volumes by several methods, side by side.",
        more="moreaugrad compare photos/ --model torchvision:squeezenet1_0 --out photos-maps",
        hidden=("sweep",), previews=True,
        usual={"--methods": ",".join(COMPARED), "--set": ("sparse-moreaugrad.tolerance=0.2",)},
        usual_of={
            "texts": {"--methods": ",".join(TEXTS_COMPARED)},
            "arrays": {"--methods": ",".join(ARRAYS_COMPARED),
                       "--set": ("sparse-moreaugrad.tolerance=0.2",)},
        },
    ),
    "sweep": Command(
        plan=f"{_PLANS}explain:ExplainPlan", run=f"{_RUNS}maps.run:MapsRun", named=True,
        help="Explain inputs at several values of a setting; the page has a slider over them.",
        more="moreaugrad sweep cat.jpg --model torchvision:resnet50 --over rho --values 0,0.3,1 "
        "--out cat-rho",
        hidden=("methods", "compare", "text", "tokenizer"), adapt=f"{_PLANS}explain:swept",
        previews=True,
    ),
    "certify": Command(
        plan=f"{_PLANS}studies:CertifyPlan", run=f"{_RUNS}certify:CertifyRun",
        help="Certify what fraction of a map's largest entries stays under any perturbation.",
        more="Certificates of Sparsified SmoothGrad, and estimates for MoreauGrad, as a function "
        "of the perturbation's L2 norm; and certificates of single pixels of the maps of any "
        "method.\n\nmoreaugrad certify cat.jpg --model torchvision:resnet50 "
        "--sigma 0.1 --out cat-certified",
    ),
    "evaluate": Command(
        plan=f"{_PLANS}explain:EvaluatePlan", run=f"{_RUNS}maps.run:MapsRun", named=True,
        help="Measure how robust, sparse and faithful maps are, on a data set and under attacks.",
        more="moreaugrad evaluate --data photos/ --model torchvision:resnet50 --methods "
        "smoothgrad,sparse-moreaugrad --attack top-k --epsilons 0.5,1 --images 50 --out run\n\n"
        + RESUMED.format("evaluate"),
    ),
    "recommend": Command(
        plan=f"{_PLANS}recommend:RecommendPlan", run=f"{_RUNS}recommend:RecommendRun", named=True,
        help="Measure which explanation method suits your network, within a given time.",
        more="Compares methods at several noise levels by sparsity, faithfulness, robustness and "
        "cost on your images; the page says which to use, and how sure that is.\n\nmoreaugrad "
        "recommend --data photos/ --model torchvision:resnet50 --images 8 --time 15m --out advice"
        "\n\n" + RESUMED.format("recommend"),
        hidden=("metrics",), without=("shard",),
    ),
    "report": Command(
        plan=f"{_PLANS}explain:ReportPlan", run=f"{_RUNS}report:ReportRun",
        help="Draw the runs of any command: tables with intervals, curves, maps.",
        more="moreaugrad report run --out page",
        without=("config", "trust", "dry_run", "shard"),
    ),
    "train": Command(
        plan=f"{_PLANS}train:TrainPlan", run=f"{_RUNS}train:TrainRun",
        help="Train a network whose plain gradient is sparse, smooth or aligned with attention.",
        more="moreaugrad train --data cells --protocol fast --penalty l1 --epsilon 0.02 --out run"
        "\n\n" + RESUMED.format("train"),
        hidden=("preprocess",), without=("shard",),
    ),
    "sanity": Command(
        plan=f"{_PLANS}studies:SanityPlan", run=f"{_RUNS}studies:SanityRun",
        help="Compare maps with those of copies of the network with randomised weights.",
        more="moreaugrad sanity --data photos/ --model torchvision:squeezenet1_0 --out "
        "photos-sanity",
    ),
    "visualise": Command(
        plan=f"{_PLANS}studies:VisualisePlan", run=f"{_RUNS}studies:VisualiseRun",
        help="Feature visualisation: images that raise the score of each class.",
        more="moreaugrad visualise --model builtin --set jitter=2 --set blur=0.5 --out features",
    ),
    "retrain diffroar": Command(
        plan=f"{_PLANS}retrain:DiffRoarPlan", run=f"{_RUNS}retrain:DiffRoarRun",
        help="Train on what a map ranks first, and on what it ranks last.",
        more="The new networks are trained as the explained one was, on the plain loss, or by "
        "--training.\n\nmoreaugrad retrain diffroar run --levels .2,.5,.8 --seeds 0,1 --out "
        "run-diffroar",
    ),
    "retrain stability": Command(
        plan=f"{_PLANS}retrain:StabilityPlan", run=f"{_RUNS}retrain:StabilityRun",
        help="Compare maps of networks trained with other seeds and on partly other images.",
        more="moreaugrad retrain stability --training run/config.toml --seeds 0,1,2 --out "
        "run-stability",
    ),
    "retrain labels": Command(
        plan=f"{_PLANS}retrain:LabelsPlan", run=f"{_RUNS}retrain:LabelsRun",
        help="Compare maps with those of networks that have learnt permuted labels.",
        more="moreaugrad retrain labels --training run/config.toml --epochs 60 --out run-labels",
    ),
}  # fmt: skip
EVERY: Mapping[str, Command] = COMMANDS | {
    "data cells": Command(
        plan=f"{_CALLS}_Cells", call=f"{_CALLS}write_cells",
        help="Write synthetic cells of ten classes as a folder of images, with ground truth maps.",
        more="moreaugrad data cells --images 4096 --test-images 1024 --size 64 --out cells\n\n"
        "Interrupted and started again, it resumes.",
        without=("overwrite", "open"),
    ),
    "bench": Command(
        plan=f"{_PLANS}bench:BenchPlan", call=f"{_CALLS}bench",
        help="Measure speed and memory of each method on this machine, next to Captum's.",
        more="moreaugrad bench --model torchvision:resnet50 --random-weights --device cuda --out "
        "speed\n\nWrites bench.json and bench.md. Inputs are noise unless there are images.",
        without=("open",),
    ),
    "serve": Command(
        plan=f"{_PLANS}serve:ServePlan", call="moreaugrad.cli.serving:serve",
        help="Explore maps live in the browser: they are refined while you change the settings.",
        more="moreaugrad serve photos/ --model torchvision:squeezenet1_0\n\nmoreaugrad serve "
        '--text "A great film." --model hf:sentiment\n\nTakes images, texts, series or volumes, as '
        "explain does. Without any, drop or paste an image in the page, or type a text.",
        without=("out", "overwrite", "json"),
    ),
    "methods": Command(
        plan="moreaugrad.cli.methods:MethodsPlan", call="moreaugrad.cli.methods:list_methods",
        help="List the methods with their settings, or explain the settings of one.", more="",
        without=("out", "overwrite", "open", "quiet"),
    ),
    "completion": Command(
        plan="moreaugrad.cli.completion:CompletionPlan",
        call="moreaugrad.cli.completion:print_script",
        help="Print a script that lets a shell complete commands, options, methods and attacks.",
        more='eval "$(moreaugrad completion bash)"      # in ~/.bashrc; zsh likewise\n\n'
        "moreaugrad completion fish > ~/.config/fish/completions/moreaugrad.fish",
        without=("out", "overwrite", "open", "json", "quiet"),
    ),
    "demo": Command(
        plan=f"{_CALLS}_Demo", call=f"{_CALLS}demo",
        help="Explain synthetic cells by the built-in networks, offline, and score the maps.",
        more="The ground truth of each cell is known. Takes about a minute.",
        without=("out", "overwrite", "quiet"),
    ),
}  # fmt: skip
"""With those that make no run of a plan."""
GROUPS = {"retrain": "Train networks again: DiffROAR, stability, permuted labels.",
          "data": "Make data sets."}  # fmt: skip

"""Every option of every command, given a value that means nothing: one line, exit code 2."""

import pytest

from moreaugrad.cli.commands import EVERY

MODEL = ("--model", "tiny_models:smooth")
OUT = ("--out", "results")
DATA = ("--data", "data", *MODEL, *OUT)
PENALISED = ("--protocol", "fast", "--penalty", "group", "--group", "4", "--epsilon", ".1")
USUAL = {
    "explain": ("one.png", *MODEL, "--method", "sparse-moreaugrad", *OUT),
    "compare": ("one.png", *MODEL, "--methods", "group-sparse-moreaugrad", *OUT),
    "sweep": ("one.png", *MODEL, "--method", "sparse-moreaugrad", "--over", "rho", *OUT),
    "certify": ("one.png", *MODEL, "--sigma", "0.5", *OUT),
    "evaluate": (*DATA, "--methods", "sparse-moreaugrad", "--attack", "top-k", "--epsilons", "1"),
    "recommend": (*DATA, "--methods", "sparse-moreaugrad,group-sparse-moreaugrad"),
    "train": (*DATA, "--size", "16", "--batch-size", "1", *PENALISED),
    "sanity": (*DATA, "--methods", "group-sparse-moreaugrad", "--images", "1"),
    "visualise": (*MODEL, *OUT),
    "bench": ("one.png", *MODEL, *OUT),
    "report": ("evaluated", *OUT),
    "serve": ("one.png", *MODEL),
    "demo": (),
    "data cells": OUT,
    "retrain diffroar": ("trained", "--trust", *OUT),
    "retrain stability": ("--training", "trained/config.toml", "--trust", *OUT),
    "retrain labels": ("--training", "trained/config.toml", "--trust", *OUT),
}
"""A command line of each command that has options with values, which its nonsense is added to."""
NONSENSE = {
    "--out": "one.png",  # a file, not a folder
    "--group": "nonsense",
    "--over": "method",
    "--set": "nonsense",
    "--memory": "-1",
}
"""Where another value than the word means nothing."""


def declared():
    """Every option with a value, by its command."""
    for name, command in EVERY.items():
        for option in command.options():
            if option.name.startswith("-") and not option.is_flag:
                yield name, option.name


@pytest.mark.parametrize(("name", "option"), list(declared()))
def test_nonsense_is_refused_in_one_line(command, photos, name, option):
    value = NONSENSE.get(option, "nonsense")
    done = command(*name.split(), *USUAL[name], option, value)
    done.refused(option, option.strip("-").replace("-", "_"), value)


def test_every_command_has_a_usual_line():
    assert {name for name, _ in declared()} == set(USUAL)


WRONG = {
    "explain": [
        ("--batch-size", "1.5"), ("--batch-size", "0"), ("--set", "draws=true"),
        ("--set", "seed=1.5"), ("--set", "seed=false"), ("--set", "sigma=[1]"),
        ("--set", "eta=" + 5000 * "["), ("--set", "eta=" + 5000 * "{a="), ("--set", "rho='a'"),
        ("--device", "foo"), ("--device", ""), ("--device", "meta"), ("--device", "cuda:99"),
        ("--device", "cpu:1"), ("--resize", "inf"), ("--resize", "1000000"), ("--resize", "nan"),
        ("--resize", "1e400"), ("--crop", "1000000"), ("--crop", "16,16,16"), ("--crop", "0"),
        ("--mean", "nan,0,0"), ("--std", "0,0,0"), ("--mean", "1,2"), ("--threads", "100000000"),
        ("--threads", "0"), ("--weights", "."), ("--labels", "\0"), ("--labels", "/dev/zero"),
        ("--model", ""), ("--model", ":"), ("--model", "trained:"), ("--model", "hf:"),
        ("--model", "x:y"), ("--target", "-1"), ("--target", "4"), ("--target", "1.5"),
        ("--score", ""), ("--config", "/dev/zero"), ("--seed", "-1"), ("--page-images", "-1"),
        ("--method", ""), ("--max-evaluations", "-1"), ("--tolerance", "nan"), ("--rho", "inf"),
    ],
    "certify": [
        ("--batch-size", "nan"), ("--sigma", "nan"), ("--sigma", "0"), ("--radii", "nan"),
        ("--noise-samples", "1"), ("--top", "2"), ("--confidence", "1"), ("--rho", "9"),
        ("--seed", "-1"),
    ],
    "evaluate": [
        ("--images", "0"), ("--block", "0"), ("--maps", "-1"), ("--max-unreadable", "2"),
        ("--epsilons", "nan"), ("--epsilons", "-1"), ("--set", "top-k.steps=true"),
        ("--set", "top-k.steps=1.5"), ("--attack", "top-k:steps=1.5"), ("--attack", "a b"),
        ("--norm", "l3"), ("--set", "nosuch.steps=1"),
    ],
    "recommend": [
        ("--time", "0"), ("--time", "15 days"), ("--time", "-1m"), ("--sigmas", "0"),
        ("--top", "1"), ("--sparsities", "1"), ("--rms", "0"), ("--rms", "nan"),
        ("--attack-steps", "0"), ("--confidence", "1"), ("--confidence", ".1"), ("--images", "0"),
        ("--methods", "nosuch"), ("--checkpoint", "nosuch.safetensors"),
    ],
    "train": [
        ("--batch-size", "0"), ("--epochs", "0"), ("--lr", "nan"), ("--lr", "-1"), ("--size", "0"),
        ("--size", "100000"), ("--validation", "1"), ("--set", "steps=true"), ("--epsilon", "nan"),
        ("--betas", "1"), ("--threads", "100000000"), ("--workers", "-1"), ("--memory", "nan"),
        ("--resize", "inf"), ("--pad", "-1"), ("--blur", "inf"), ("--group", "0"),
        ("--split-seed", "-1"), ("--split-seed", "9223372036854775808"),
        ("--seed", "9223372036854775808"),
    ],
    "sanity": [("--seeds", "1.5"), ("--seeds", "-1"), ("--images", "0"), ("--modes", "")],
    "visualise": [("--set", "steps=true"), ("--set", "steps=-1"), ("--images", "0")],
    "data cells": [("--size", "8"), ("--images", "-1"), ("--seed", "99999999999")],
    "report": [("--confidence", "2"), ("--gallery", "-1")],
    "serve": [("--port", "70000"), ("--port", "1.5"), ("--host", "192.0.2.1"), ("--model", "")],
}  # fmt: skip
"""Values of the right form that are not possible."""


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [(name, *pair) for name, pairs in WRONG.items() for pair in pairs],
)
def test_impossible_values_are_refused_in_one_line(command, photos, name, option, value):
    setting = value.partition("=")[0].rpartition(".")[2] if option == "--set" else value
    done = command(*name.split(), *USUAL[name], option, value)
    done.refused(option.strip("-"), option.strip("-").replace("-", "_"), setting, "nested", "steps")

"""Completion: what a shell offers, asked of the shell itself."""

import shutil
import subprocess

import pytest

from moreaugrad.attacks import ATTACKS
from moreaugrad.cli.commands import EVERY
from moreaugrad.explainers import METHODS
from moreaugrad.runs.plans.maps import SCORES
from moreaugrad.score.targets import KINDS

OFFERED = {
    ("",): {name.split()[0] for name in EVERY},
    ("explain", "--method", "sparse-m"): {"sparse-moreaugrad", "sparse-moreaugrad-plain"},
    ("compare", "--methods", "relex"): {"relex"},
    ("evaluate", "--attack", ""): set(ATTACKS),
    ("evaluate", "--metrics", "auro"): {"auroc"},
    ("explain", "--quality", ""): {"preview", "standard", "fine"},
    ("train", "--penalty", "squ"): {"squared-l2"},
    ("explain", "--model", "b"): {"builtin"},
}


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    from moreaugrad.cli.app import make_app

    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    script = tmp_path_factory.mktemp("completion") / "completion.bash"
    script.write_text(make_app(None).generate_completion(shell="bash"), encoding="utf-8")

    def offered(words):
        line = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _moreaugrad'
        done = subprocess.run(
            ["bash", "-c", f"{line}; printf '%s\\n' \"${{COMPREPLY[@]}}\"", "bash", str(script),
             "moreaugrad", *words],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return set(done.stdout.split())

    return offered


@pytest.mark.parametrize("words", OFFERED, ids=" ".join)
def test_bash_offers(bash, words):
    assert bash(words) == OFFERED[words]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed(command, shell):
    done = command("completion", shell)
    assert done.code == 0
    assert all(name in done.out for name in METHODS)


def test_another_shell(command):
    command("completion", "tcsh").refused("bash, zsh, fish")


def test_scores_are_those_of_the_library():
    assert set(SCORES) == set(KINDS)

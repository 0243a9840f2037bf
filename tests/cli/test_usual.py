"""What a command does by default gives way to what is asked for."""

from pathlib import Path
from typing import Any

import pytest

from moreaugrad.cli.commands import COMMANDS, COMPARED, CommonOptions
from moreaugrad.cli.perform import assemble


@pytest.mark.parametrize(("given", "methods", "own", "common"), [
    ({}, COMPARED, {"tolerance": 0.2}, {}),
    ({"--tolerance": "standard"}, COMPARED, {}, {"tolerance": "standard"}),
    ({"--set": ("sparse-moreaugrad.rho=2",)}, COMPARED, {"tolerance": 0.2, "rho": 2}, {}),
    ({"--methods": "relex,sparse-moreaugrad"}, ("relex", "sparse-moreaugrad"), {}, {}),
])  # fmt: skip
def test_what_compare_compares(
    given: dict[str, Any], methods: tuple[str, ...], own: dict[str, Any], common: dict[str, Any]
) -> None:
    plan: Any = assemble(COMMANDS["compare"], given, CommonOptions())
    assert tuple(plan.methods) == methods
    assert plan.methods["sparse-moreaugrad"] == own
    assert plan.settings == common


def test_a_configuration_comes_before_what_is_usual(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("[settings]\ntolerance = 0.05\n")
    output = CommonOptions(config=str(tmp_path / "plan.toml"))
    plan: Any = assemble(COMMANDS["compare"], {}, output)
    assert plan.methods["sparse-moreaugrad"] == {}
    assert plan.settings == {"tolerance": 0.05}

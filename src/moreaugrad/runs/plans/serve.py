"""What `serve` is asked for: which network, which images, and where the page is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moreaugrad.runs.plans.common import ComputePlan, DataPlan, ModelPlan
from moreaugrad.runs.plans.option import Plan, option, part


@dataclass(frozen=True, kw_only=True)
class ServePlan(Plan):
    """Without images, they are opened in the page."""

    GROUP: ClassVar[str] = "Page"

    data: DataPlan = part(DataPlan)
    model: ModelPlan = part(ModelPlan)
    compute: ComputePlan = part(ComputePlan)
    host: str = option(
        "localhost", "Address to listen at. With any but this machine's own, everyone who knows "
        "the page's address can use the network and this computer's time.",
    )  # fmt: skip
    port: int = option(0, "Port to listen at.", shown="a free one", within="[0, 65535]")

"""What `serve` is asked for: which network, which inputs, and where the page is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moreaugrad.runs.plans.common import ComputePlan, DataPlan
from moreaugrad.runs.plans.explain import ExplainPlan
from moreaugrad.runs.plans.option import Plan, option, part
from moreaugrad.runs.plans.texts import ReaderPlan, TextPlan


@dataclass(frozen=True, kw_only=True)
class ServePlan(Plan):
    """Without images or texts, they are opened in the page."""

    GROUP: ClassVar[str] = "Page"

    data: DataPlan = part(DataPlan)
    model: ReaderPlan = part(ReaderPlan)
    text: TextPlan | None = None
    compute: ComputePlan = part(ComputePlan)
    host: str = option(
        "localhost", "Address to listen at. With any but this machine's own, everyone who knows "
        "the page's address can use the network and this computer's time.",
    )  # fmt: skip
    port: int = option(0, "Port to listen at.", shown="a free one", within="[0, 65535]")

    @property
    def inputs(self) -> ExplainPlan:
        """What is asked of inputs and network, as `explain` is asked. Errors: ValueError for inputs
        of several kinds."""
        return ExplainPlan(data=self.data, model=self.model, text=self.text, compute=self.compute)

"""Training with a penalty makes gradients sparser and draws them to the truth."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moreaugrad.metrics.localisation import auroc
from moreaugrad.runs.engine import execute
from moreaugrad.runs.plans.train import AugmentPlan, ProtocolPlan, TrainDataPlan, TrainPlan
from moreaugrad.runs.train.measure import spread
from moreaugrad.runs.train.run import TrainRun

FEATURE = 0.65
"""Between the true map's values on the object and on what tells its class."""


def worth(out: Path, protocol: ProtocolPlan) -> tuple[float, float]:
    """Gini and AUROC of the true class's logit's gradient on cells that were not trained on."""
    chosen = TrainPlan(
        epochs=2, batch=16, augment=AugmentPlan(size=32), protocol=protocol, measured=128,
        data=TrainDataPlan(source="cells", images=448, test="test", test_images=128),
    )  # fmt: skip
    run = TrainRun(chosen)
    outcome, prepared = execute(run, out), run.prepared
    scores = []
    for number, batch in enumerate(prepared.evaluated(prepared.test).epoch(0)):
        piece = prepared.piece(number, batch)
        x = piece.x.requires_grad_()
        logits = prepared.module(x).gather(1, piece.y[:, None])
        magnitude = torch.autograd.grad(logits.sum(), x)[0].abs().sum(1)
        scores.append(auroc(magnitude, batch.attention[:, 0] > FEATURE))
    found = torch.cat(scores)
    results = run.results(outcome.directory)["results"]
    return results["test"]["gini"]["mean"], float(found[~found.isnan()].mean())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, float]:
    return worth(tmp_path_factory.mktemp("plain") / "run", ProtocolPlan())


def test_a_penalty_raises_gini_and_auroc(plain: tuple[float, float], tmp_path: Path) -> None:
    fast = ProtocolPlan(name="fast", penalty="l1", epsilon=(0.1,))
    gini, area = worth(tmp_path / "run", fast)
    assert gini > plain[0] + 0.01
    assert area > plain[1] + 0.01


@given(st.integers(1, 60), st.integers(1, 80), st.integers(1, 20))
def test_measured_images_are_spread_over_all(total: int, wanted: int, batch: int) -> None:
    parts = [
        spread(start, min(batch, total - start), wanted, total) for start in range(0, total, batch)
    ]
    places = torch.cat(parts).nonzero().flatten()
    assert len(places) == min(wanted, total)
    gaps = places.diff(prepend=torch.tensor([-1]), append=torch.tensor([total]))
    assert gaps.max() <= -(-total // min(wanted, total))

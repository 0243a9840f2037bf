"""Values of tables against formulas: of linear models, cubes, and explainers used by hand."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import moreaugrad as mg
from moreaugrad.table import batches, rows

NAMES = ["age", "income", "city_Paris", "city_Rome"]
SCALES = np.array([12.0, 30_000.0, 0.4, 0.5])
WEIGHT = torch.tensor([[0.05, 2e-5, 1.5, -0.8], [-0.02, 1e-5, 0.3, 0.4]])
GROUPS = {"city": ["city_Paris", "city_Rome"]}
REGRESSION = {"task": "regression", "target": 0}


def table(count: int, seed: int) -> pd.DataFrame:
    """Columns of very different scales, labelled from 100 on."""
    numbers = np.random.default_rng(seed).normal(size=(count, 4)) * SCALES + 3 * SCALES
    return pd.DataFrame(numbers, columns=NAMES, index=range(100, 100 + count))


FRAME, BACKGROUND = table(9, 0), table(40, 1)
STD, MEAN = BACKGROUND.std(ddof=0).to_numpy(), BACKGROUND.mean().to_numpy()


def linear(dtype: torch.dtype = torch.float64) -> nn.Linear:
    made = nn.Linear(4, 2, dtype=dtype).eval()
    with torch.no_grad():
        made.weight.copy_(WEIGHT)
        made.bias.fill_(0.25)
    return made


def curved() -> nn.Module:
    """A network whose inputs are about standardised by its first layer."""
    torch.manual_seed(3)
    first = nn.Linear(4, 8)
    with torch.no_grad():
        first.weight.div_(torch.tensor(SCALES, dtype=torch.float32))
    return nn.Sequential(first, nn.SiLU(), nn.Linear(8, 3)).eval()


def close(found: torch.Tensor, expected: object, tolerance: float = 1e-9) -> None:
    wanted = torch.as_tensor(np.asarray(expected), dtype=torch.float64)
    torch.testing.assert_close(
        found.double(), wanted.expand_as(found), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("method", ["simple-gradient", "smoothgrad", "moreaugrad"])
@pytest.mark.parametrize(("values", "factor"), [("deviation", STD), ("unit", np.ones(4))])
def test_slopes_of_a_linear_model_are_its_coefficients(method, values, factor):
    found = mg.table.explain(
        linear(), FRAME, method, background=BACKGROUND, values=values, **REGRESSION
    )
    close(found.values, WEIGHT[0].numpy() * factor, 1e-6)
    assert found.value == values
    assert values in found.meaning
    assert found.base is None


def test_products_are_contributions_from_the_mean():
    found = mg.table.explain(
        linear(), FRAME, "simple-gradient", background=BACKGROUND, values="product", **REGRESSION
    )
    close(found.values, (FRAME.to_numpy() - MEAN) * WEIGHT[0].numpy(), 1e-6)


def test_slopes_are_per_unit_where_no_deviation_is_known():
    found = mg.table.explain(linear(), FRAME, "simple-gradient", **REGRESSION)
    assert found.value == "unit"
    close(found.values, WEIGHT[0].numpy(), 1e-6)


@pytest.mark.parametrize("scale", [2.0, [2.0] * 4, dict.fromkeys(NAMES, 2.0),
                                   pd.Series(dict.fromkeys(NAMES[::-1], 2.0))])  # fmt: skip
def test_a_scale_stands_for_the_deviations(scale):
    found = mg.table.explain(linear(), FRAME, "simple-gradient", scale=scale, **REGRESSION)
    assert found.value == "deviation"
    close(found.values, 2 * WEIGHT[0].numpy(), 1e-6)


@pytest.mark.parametrize(
    ("baseline", "row"),
    [
        (None, MEAN),
        ("mean", MEAN),
        ("median", BACKGROUND.median().to_numpy()),
        (0, np.zeros(4)),
        (BACKGROUND.iloc[3], BACKGROUND.iloc[3].to_numpy()),
        ({name: at for at, name in reversed(list(enumerate(NAMES)))}, np.arange(4)),
        ([1, 2, 3, 4], np.arange(1, 5)),
    ],
)
@pytest.mark.parametrize("method", ["integrated-gradients", "deeplift"])
def test_contributions_add_up_from_the_baseline(method, baseline, row):
    found = mg.table.explain(
        linear(), FRAME, method, background=BACKGROUND, baseline=baseline, target=1
    )
    expected = (FRAME.to_numpy() - row) * WEIGHT[1].numpy()
    close(found.values, expected, 1e-6)
    close(found.base, WEIGHT[1].numpy() @ row + 0.25, 1e-6)
    close(found.base + found.values.sum(1), found.score.numpy(), 1e-6)
    assert found.complete
    assert found.value == "contribution"


def test_expected_contributions_are_from_the_mean_over_the_background():
    # Four rows, of which each block of four draws has each once.
    own = BACKGROUND.iloc[:4]
    found = mg.table.explain(linear(), FRAME, background=own, target=1, samples=64)
    close(found.values, (FRAME.to_numpy() - own.mean().to_numpy()) * WEIGHT[1].numpy(), 1e-6)
    close(found.base, WEIGHT[1].numpy() @ own.mean().to_numpy() + 0.25, 1e-6)
    one = mg.table.explain(linear(), FRAME, baseline=0, target=1)
    close(one.values, FRAME.to_numpy() * WEIGHT[1].numpy(), 1e-6)


def test_base_and_contributions_of_a_curved_model():
    model, x = curved(), torch.tensor(FRAME.to_numpy(), dtype=torch.float32)
    found = mg.table.explain(model, FRAME, "integrated-gradients", background=BACKGROUND, target=2)
    with torch.no_grad():
        start = model(torch.tensor(MEAN, dtype=torch.float32)[None])[0, 2]
        torch.testing.assert_close(found.score, model(x)[:, 2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.base, start.expand(9), rtol=1e-4, atol=1e-5)
    total = found.base + found.values.sum(1)
    torch.testing.assert_close(total, found.score, rtol=1e-3, atol=1e-4)
    drawn = mg.table.explain(model, FRAME, background=BACKGROUND, target=2, samples=1024)
    total = drawn.base + drawn.values.sum(1) - drawn.explanation.details["gap"]
    torch.testing.assert_close(total, drawn.score, rtol=1e-3, atol=1e-4)


def test_noise_is_in_deviations_of_each_column():
    """f = sum a x^3, so that E df/dx = 3 a (x^2 + sigma^2 s^2)."""
    a = torch.tensor(1 / SCALES**3)
    found = mg.table.explain(
        lambda x: (a * x**3).sum(1), FRAME.iloc[:2], "smoothgrad", task="regression", sigma=0.5,
        samples=4096, background=BACKGROUND, values="unit",
    )  # fmt: skip
    x = FRAME.iloc[:2].to_numpy()
    expected = 3 * a.numpy() * (x**2 + 0.25 * STD**2)
    relative = found.values.numpy() / expected - 1
    assert np.abs(relative).max() < 0.02
    without = 3 * a.numpy() * x**2
    assert (np.abs(found.values.numpy() / without - 1) > 0.01).all()
    assert found.explanation.settings["sigma_mode"] == "absolute"


def test_a_third_of_a_deviation_is_the_default():
    def settings(method, **own):
        found = mg.table.explain(linear(), FRAME.iloc[:1], method, background=BACKGROUND,
                                 target=0, **own)  # fmt: skip
        return found.explanation.settings

    assert settings("smoothgrad")["sigma"] == 0.3
    assert settings("sparse-moreaugrad")["sigma"] == 0.3
    assert settings("sparse-moreaugrad-plain")["sigma"] == 0
    assert settings("smoothgrad", sigma="auto")["sigma_mode"] == "relative"


def shrunk(groups, weight):
    """The slope per deviation of the linear model, each group's norm lowered by the weight."""
    slope = WEIGHT[0].double().numpy() * STD
    found = slope.copy()
    for places in groups:
        norm = np.linalg.norm(slope[places])
        found[places] *= max(0.0, 1 - weight / norm)
    return found


APART, TOGETHER = [[0], [1], [2], [3]], [[0], [1], [2, 3]]


@pytest.mark.parametrize(
    ("method", "groups", "own", "expected"),
    [
        ("sparse-moreaugrad", None, {}, APART),
        ("group-sparse-moreaugrad", None, {}, APART),
        ("group-sparse-moreaugrad", GROUPS, {}, TOGETHER),
        ("moreau", GROUPS, {"penalty": mg.GroupL2(1.0)}, TOGETHER),
        ("moreau", GROUPS, {"penalty": "group 1.0"}, TOGETHER),
        ("moreau", GROUPS, {"penalty": mg.L1(1.0)}, APART),
    ],
)
def test_penalties_act_on_groups_of_columns(method, groups, own, expected):
    found = mg.table.explain(
        linear(), FRAME, method, background=BACKGROUND, groups=groups, sigma=0, eta=0.5,
        **own, **REGRESSION,
    )  # fmt: skip
    wanted = shrunk(expected, 0.5)
    close(found.explanation.maps, wanted, 1e-4)
    assert (shrunk(APART, 0.5)[3] == 0) != (shrunk(TOGETHER, 0.5)[3] == 0)
    whole = [wanted[0], wanted[1], wanted[2] + wanted[3]] if groups else wanted
    close(found.values, whole, 1e-4)


def test_cafo_of_groups():
    found = mg.table.explain(
        linear(), FRAME, "cafo", background=BACKGROUND, groups=GROUPS, penalty=mg.GroupL2(1.0),
        score="logit", c1=0.5, lambda1=0.5, **REGRESSION,
    )  # fmt: skip
    close(found.explanation.maps, shrunk(TOGETHER, 0.5), 1e-6)
    assert found.value == "map"


def test_values_of_groups_are_sums_in_the_order_of_columns():
    groups = {"who": ["income", "city_Rome"], "where": ["city_Paris"]}
    alone, found = (
        mg.table.explain(linear(), FRAME, "integrated-gradients", background=BACKGROUND, target=0,
                         groups=own)
        for own in (None, groups)
    )  # fmt: skip
    assert found.names == ("age", "who", "where")
    values = alone.values
    expected = torch.stack([values[:, 0], values[:, 1] + values[:, 3], values[:, 2]], dim=1)
    torch.testing.assert_close(found.values, expected)
    torch.testing.assert_close(found.explanation.maps, values)


METHODS = {
    "simple-gradient": {}, "integrated-gradients": {}, "expected-gradients": {"samples": 16},
    "smoothgrad": {"samples": 16}, "sparse-moreaugrad": {"max_evaluations": 64, "eta": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_rows_and_parts_of_them_have_the_same_values(method, monkeypatch):
    given = {"background": BACKGROUND, "target": [0, 1, 2] * 3, "groups": GROUPS} | METHODS[method]
    ids = [5, 3, 9, 1, 0, 2, 8, 7, 6]
    whole = mg.table.explain(curved(), FRAME, method, ids=ids, **given)
    seen = []
    for module in (batches, rows):
        monkeypatch.setattr(module, "CELLS", 17)  # four rows
    parts = mg.table.explain(
        curved(), FRAME, method, ids=ids, progress=lambda done, of: seen.append((done, of)), **given
    )
    scale = float(whole.values.abs().max())
    torch.testing.assert_close(parts.values, whole.values, rtol=0, atol=2e-5 * scale)
    assert parts.status == whole.status
    assert seen[-1] == (9, 9)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len({done for done, _ in seen}) >= 3
    for row in (0, 5, 8):
        one = mg.table.explain(
            curved(), FRAME.iloc[[row]], method, ids=[ids[row]],
            **given | {"target": given["target"][row]},
        )  # fmt: skip
        torch.testing.assert_close(one.values, whole[row].values, rtol=0, atol=2e-5 * scale)


def test_frames_arrays_and_tensors_are_the_same():
    given = {"background": BACKGROUND, "target": 0}
    frame = mg.table.explain(curved(), FRAME, **given)
    for other in (FRAME.to_numpy(), torch.tensor(FRAME.to_numpy()), FRAME.to_numpy(np.float32)):
        own = {**given, "background": BACKGROUND.to_numpy()}
        found = mg.table.explain(curved(), other, columns=NAMES, **own)
        torch.testing.assert_close(found.values, frame.values, rtol=1e-4, atol=1e-5)
        assert found.names == frame.names
    assert frame.names == tuple(NAMES)


def test_order_of_columns():
    shuffled = FRAME[["city_Rome", "age", "city_Paris", "income"]].assign(extra=1.0)
    given = {"background": BACKGROUND, "target": 0, "columns": NAMES}
    found = mg.table.explain(curved(), shuffled, reorder=True, **given)
    plain = mg.table.explain(curved(), FRAME, **given)
    assert found.names == tuple(NAMES)
    torch.testing.assert_close(found.values, plain.values)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_precision_is_the_models_or_single(dtype):
    found = mg.table.explain(
        linear(dtype), FRAME, "simple-gradient", background=BACKGROUND, target=0
    )
    assert found.values.dtype is torch.promote_types(dtype, torch.float32)
    assert found.inputs.dtype is found.values.dtype
    close(found.values, WEIGHT[0].numpy() * STD, 0.02)


def test_columns_that_do_not_vary_keep_their_unit():
    own = BACKGROUND.assign(age=0.1)
    found = mg.table.explain(linear(), FRAME, "simple-gradient", background=own, **REGRESSION)
    close(found.values, WEIGHT[0].numpy() * np.where(np.arange(4) == 0, 1, STD), 1e-6)
    assert "constant" in found.notes[0]
    assert "age" in found.notes[0]
    assert "age" in repr(found)


def test_nothing_is_changed(untouched_generators):
    model, frame = linear(), FRAME.copy()
    before = {name: own.clone() for name, own in model.state_dict().items()}
    with untouched_generators():
        found = mg.table.explain(
            model, frame, "smoothgrad", background=BACKGROUND, samples=4, **REGRESSION
        )
    pd.testing.assert_frame_equal(frame, FRAME)
    assert not model.training
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())
    assert all(own.requires_grad and own.grad is None for own in model.parameters())
    found.inputs.zero_()
    pd.testing.assert_frame_equal(frame, FRAME)


def test_targets_by_label():
    labels = ["no", "yes", "maybe"]
    words = ["yes", "no", "maybe"] * 3
    found = mg.table.explain(curved(), FRAME, "simple-gradient", target=words, labels=labels)
    assert found.target.tolist() == [1, 0, 2] * 3
    series = mg.table.explain(curved(), FRAME, "simple-gradient", target=pd.Series(words),
                              labels=labels)  # fmt: skip
    assert torch.equal(series.values, found.values)
    pair = mg.table.explain(curved(), FRAME, "simple-gradient", target=tuple(words), labels=labels)
    assert torch.equal(pair.values, found.values)
    one = mg.table.explain(curved(), FRAME, "simple-gradient", target="maybe", labels=labels)
    assert one.target.tolist() == [2] * 9
    free = mg.table.explain(curved(), FRAME, "simple-gradient")
    assert torch.equal(free.target, free.prediction)


class Coded(nn.Module):
    """A column of whole numbers has a vector for each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.codes, self.layer = nn.Embedding(10, 3), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat((self.codes(x[:, 0].long()), x[:, 1:]), 1))


def test_a_model_that_truncates_codes_sees_them_unrounded_or_is_refused() -> None:
    draw = np.random.default_rng(3)
    rows = np.stack([draw.integers(0, 10, 300), draw.normal(size=300)], 1)
    model = Coded().eval()
    with pytest.raises(ValueError, match=r"rounding.*background="):
        mg.table.explain(model, rows, "integrated-gradients", background=rows, target=1)
    found = mg.table.explain(model, rows, "integrated-gradients", baseline=0, target=1)
    x = torch.tensor(rows, dtype=torch.float32)
    assert torch.equal(found.score, model(x)[:, 1])


def test_the_method_s_own_baselines_are_refused() -> None:
    with pytest.raises(ValueError, match="baselines: expected background="):
        mg.table.explain(Coded().eval(), np.ones((2, 2)), baselines=np.zeros((1, 2)), target=1)


def test_no_rows_and_rows_that_failed_are_shown() -> None:
    model = nn.Linear(2, 2).eval()
    found = mg.table.explain(model, np.ones((2, 2)), "simple-gradient", target=1)
    assert "no rows" in repr(found[0:0])
    assert "no rows" in found[0:0]._repr_html_()


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(8), nn.Dropout(0.5)])
def test_a_model_in_training_mode_is_refused_as_it_is(
    layer: nn.Module, untouched_generators: Callable[[], AbstractContextManager[None]]
) -> None:
    net = nn.Sequential(nn.Linear(3, 8), layer, nn.SiLU(), nn.Linear(8, 1)).train()
    before = deepcopy(net.state_dict())
    rows, background = torch.randn(6, 3), torch.randn(50, 3) + 3
    with untouched_generators(), pytest.raises(ValueError, match="eval"):
        mg.table.explain(net, rows, "simple-gradient", task="regression", background=background)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_standardised_columns_need_no_larger_passes() -> None:
    sizes: set[int] = set()

    class Noting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.add(len(x))
            found: torch.Tensor = self.last(x)
            return found

    rows, background = torch.randn(100, 3), torch.randn(50, 3) + 3
    mg.table.explain(
        Noting().eval(), rows, "simple-gradient", background=background, batch_size=16
    )  # fmt: skip
    assert max(sizes) <= 16


def test_a_model_of_other_columns_is_one_clear_error() -> None:
    rows, background = torch.randn(6, 3), torch.randn(50, 3)
    with pytest.raises(ValueError, match="model"):
        mg.table.explain(
            nn.Linear(5, 1).eval(), rows, "simple-gradient", task="regression",
            background=background,
        )  # fmt: skip

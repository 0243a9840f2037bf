"""A function of the output as the target: errors, noise, results, and what else takes it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import moreaugrad as mg
import toys
from moreaugrad.score.checks import TargetError

MODEL, X = toys.network((5, 8, 3)), toys.normal(4, 5, seed=3)
IMAGES = nn.Sequential(nn.Flatten(), *toys.network((16, 8, 3))).eval()
PHOTOS = toys.normal(2, 1, 4, 4, seed=1)
LINEAR = nn.Linear(5, 3).double().eval()


def last(output: Tensor) -> Tensor:
    return output[:, 2]


@dataclass(frozen=True, eq=False)
class Weighted(mg.targets.TargetFunction):
    weights: Tensor

    def __call__(self, output: Any) -> Tensor:
        return (output * self.weights).sum(1)


def test_the_map_of_a_linear_model_is_its_weights() -> None:
    found = mg.SimpleGradient(LINEAR).explain(X, lambda z: 2 * z[:, 0] - z[:, 1])
    expected = 2 * LINEAR.weight[0] - LINEAR.weight[1]
    torch.testing.assert_close(found.maps, expected.detach().expand(4, -1))
    z = LINEAR(X)
    torch.testing.assert_close(found.score, 2 * z[:, 0] - z[:, 1])
    assert found.target.tolist() == found.prediction.tolist() == [-1] * 4
    assert found.probabilities is None


def test_data_of_each_sample_follow_it_through_chunks_and_noise() -> None:
    weights = toys.normal(4, 3, seed=9)
    explainer = mg.SmoothGrad(MODEL, sigma=0.3, samples=6, batch_size=5)
    ids = [3, 1, 4, 2]
    found = explainer.attribute(X, target=Weighted(weights), ids=ids)
    for i in range(4):
        own = slice(i, i + 1)
        alone = mg.SmoothGrad(MODEL, sigma=0.3, samples=6, batch_size=1).attribute(
            X[own], target=Weighted(weights[own]), ids=ids[own]
        )
        torch.testing.assert_close(found[own], alone)
    plain = mg.SimpleGradient(LINEAR).attribute(X, target=Weighted(weights))
    torch.testing.assert_close(plain, weights @ LINEAR.weight)


@dataclass(frozen=True, eq=False)
class Columns(mg.targets.TargetFunction):
    chosen: tuple[int, ...]

    def __call__(self, output: Any) -> Tensor:
        found: Tensor = output[:, list(self.chosen)].sum(1)
        return found


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_settings_that_are_tuples_are_those_of_all_samples(batch: int) -> None:
    """Also where there are as many samples as entries."""
    found = mg.SmoothGrad(LINEAR, samples=3, sigma=0.1).attribute(X[:batch], Columns((1, 2)))
    expected = (LINEAR.weight[1] + LINEAR.weight[2]).detach()
    torch.testing.assert_close(found, expected.expand(batch, -1))


def test_a_module_is_a_function_and_keeps_its_gradients() -> None:
    head = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)).double().eval()
    found = mg.SimpleGradient(LINEAR).attribute(X, target=head)
    expected = (head[0].weight @ LINEAR.weight).detach().expand(4, -1)
    torch.testing.assert_close(found, expected)
    assert all(weight.grad is None for weight in (*head.parameters(), *LINEAR.parameters()))
    with pytest.raises(ValueError, match=r"evaluation mode.*training mode"):
        mg.SimpleGradient(LINEAR).attribute(X, target=nn.Sequential(head, nn.Dropout()).train())


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda z: z, r"shape \(4,\), one number for each sample, got shape \(4, 3\)"),
        (lambda z: z[:, :1], r"got shape \(4, 1\)"),
        (lambda z: z.sum(), r"got shape \(\)"),
        (lambda z: z.argmax(1), "got torch.int64, which has no gradient"),
        (lambda z: z[:, 0].tolist(), "got list of 4"),
        (
            lambda z: z["masks"],
            r"<lambda> failed at the model's output, Tensor \[4, 3\] \(\w*Error",
        ),
        (lambda z: z[:, 7], r"IndexError"),
        (lambda z: z[:, 0] * torch.ones(4), r"shape \(1,\).* a TargetFunction|moreaugrad.targets"),
    ],
)
def test_what_is_not_a_number_for_each_sample_is_refused(
    function: Callable[[Tensor], Any], words: str
) -> None:
    with pytest.raises(TargetError, match=words):
        mg.SimpleGradient(MODEL).explain(X, function)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda z: z[:, 0].detach(), "gradient is not recorded.*the function that is the target"),
        (lambda z: (z[:, 0] / 0).sqrt(), "finite"),
        (lambda z: z[:, 0] - z[:, 0].mean(), "samples do not depend on each other"),
        (lambda z: z[:, 0] + torch.rand(()), "random"),
    ],
)
def test_what_is_no_differentiable_function_of_each_sample_is_refused(
    function: Callable[[Tensor], Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        mg.SimpleGradient(MODEL).explain(X, function)


def test_other_mistakes() -> None:
    explainer = mg.SimpleGradient(MODEL)
    with pytest.raises(TypeError, match="the class Weighted: make an instance"):
        explainer.explain(X, Weighted)
    with pytest.raises(ValueError, match=r"weights: expected 4 rows.*got shape \(3, 3\)"):
        explainer.explain(X, Weighted(torch.ones(3, 3)))
    with pytest.raises(TypeError, match="a function of the model's output"):
        explainer.explain(X, [last, last])
    with pytest.raises(TypeError, match=r"expected classes.*function"):
        mg.activation_maximisation(MODEL, last, (5,))
    with pytest.raises(ValueError, match=r"no log-probability.*function"):
        mg.relu_hessian(MODEL, X, last)


def test_the_task_is_that_of_the_function() -> None:
    """A model of one logit, or of sigmoids, has no say in how a function reads it."""
    expected = mg.SimpleGradient(MODEL).attribute(X, target=2)
    for task in ("multiclass", "multilabel", "regression", "auto"):
        found = mg.SimpleGradient(MODEL, task=task).attribute(X, target=last)
        torch.testing.assert_close(found, expected)


def test_results_name_the_function(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    found = mg.SimpleGradient(MODEL).explain(X, last)
    assert "4 × last" in repr(found)
    assert "last" in repr(found[0])
    assert "last" in found._repr_html_()
    table = found.to_pandas()
    assert table["target"].tolist() == [-1] * 4
    assert table["label"].tolist() == ["last"] * 4
    assert "prediction" not in table
    found.save(tmp_path / "found.safetensors")
    read = mg.Explanation.load(tmp_path / "found.safetensors")
    assert repr(read).splitlines()[1:4] == repr(found).splitlines()[1:4]
    assert read.function == "last"
    with pytest.raises(ValueError, match=r"target: .*function last.*read from a file"):
        mg.SimpleGradient(MODEL).vjp(read, X)


def test_parts_of_a_result_keep_the_data_of_their_samples() -> None:
    explainer = mg.SimpleGradient(MODEL)
    found = explainer.explain(X, Weighted(toys.normal(4, 3, seed=9)))
    whole, part = explainer.vjp(found, X), explainer.vjp(found[[2, 0]], X[[2, 0]])
    torch.testing.assert_close(part, whole[[2, 0]])


@pytest.mark.parametrize("name", sorted(mg.attacks.ATTACKS))
def test_attacks_take_it(name: str) -> None:
    """Like a class, apart from the prediction, which they do not keep."""
    known = mg.attacks.ATTACKS[name].defaults()
    small = {"steps": 2, "restarts": 1, "tries": 2, "draws": 2, "queries": 4, "epsilon": 0.1}
    settings = {key: value for key, value in small.items() if key in known}
    if name == "target-region":
        settings["region"] = torch.ones(4, 4, dtype=torch.bool).tril()
    if "sigma" in known:
        settings["sigma"] = 0.1
    explainer = mg.SimpleGradient(IMAGES)
    attack = mg.attacks.build(name, explainer, **settings)
    found = attack.attack(PHOTOS, last)
    assert found.feasible.all()
    assert found.attacked.function is last
    torch.testing.assert_close(found.attacked.score, IMAGES(found.inputs)[:, 2])
    again = attack.attack(PHOTOS, last, clean=explainer.explain(PHOTOS, last))
    torch.testing.assert_close(again.inputs, found.inputs)
    with pytest.raises(ValueError, match="clean: expected the explanation of these"):
        attack.attack(PHOTOS, last, clean=explainer.explain(PHOTOS, lambda z: z[:, 1]))


def test_metrics_take_it() -> None:
    found = mg.SimpleGradient(MODEL).explain(X, last)
    bound, same = (mg.Score(MODEL).bind(X, target) for target in (last, 2))
    plain = mg.metrics.Replacement(score=None, size=1)
    for metric in (mg.metrics.aopc, mg.metrics.deletion, mg.metrics.insertion):
        values = [metric(each, found.maps, steps=3, how=plain) for each in (bound, same)]
        torch.testing.assert_close(*values)
    for each in (bound, same):
        values.append(mg.metrics.infidelity(each, found.maps))
    torch.testing.assert_close(values[-1], values[-2])
    near = mg.metrics.Near(radius=0.02, draws=2)
    values = [
        mg.metrics.max_sensitivity(explainer, explainer.explain(X, target), near=near)
        for explainer in [mg.SimpleGradient(MODEL)] for target in (last, 2)
    ]  # fmt: skip
    torch.testing.assert_close(*values)
    results = [
        mg.metrics.randomisation(IMAGES, mg.SimpleGradient, PHOTOS, target, seeds=[0]).similarity
        for target in (last, 2)
    ]
    torch.testing.assert_close(*results)


def test_metrics_of_probabilities_and_predictions_refuse_it() -> None:
    bound = mg.Score(MODEL).bind(X, last)
    with pytest.raises(ValueError, match=r"no probability.*use score=.*function"):
        mg.metrics.deletion(bound, X, steps=3)
    with pytest.raises(ValueError, match=r"predicts.*function"):
        mg.metrics.soft_stability(bound, X)


def test_certificates_take_it() -> None:
    noise = {"sigma": 0.5, "sigma_mode": "absolute"}
    explainer = mg.SparsifiedSmoothGrad(MODEL, samples=64, **noise)
    found, same = (
        mg.certificates.certify(explainer, X, target, radii=[0.01, 0.1]) for target in (last, 2)
    )
    torch.testing.assert_close(found.overlap, same.overlap)
    assert "of the function explained at x" in found.statement
    assert "of class 2" in same.statement
    pixels = [
        mg.certificates.certify_pixels(
            mg.SimpleGradient(MODEL), X, target, sigma=0.1, samples=40, top=0.4, confidence=0.5
        ).votes
        for target in (Weighted(torch.tensor([[0.0, 0, 1]] * 4)), 2)
    ]
    assert torch.equal(*pixels)


def test_interactions_and_guidance_take_it() -> None:
    explainer = mg.MoreauGrad(MODEL, sigma=0, rho=0.01)
    values = [
        mg.interactions(explainer, mg.SimpleGradient(MODEL).explain(X, target), most=3).values
        for target in (last, 2)
    ]
    torch.testing.assert_close(*values)
    limits = [mg.rho_guidance(explainer, X, target).limit for target in (last, 2)]
    torch.testing.assert_close(*limits)


@pytest.mark.parametrize("name", ["captum:Saliency", "captum:FeatureAblation", "captum:Occlusion"])
def test_methods_of_captum_take_it(name: str) -> None:
    own = {"sliding_window_shapes": (2,)} if name.endswith("Occlusion") else {}
    explainer = mg.build(name, MODEL, **own)
    values = [explainer.explain(X, target).maps for target in (last, 2)]
    torch.testing.assert_close(*values)


def test_the_explorer_and_runs_are_of_classes() -> None:
    found = mg.SimpleGradient(MODEL).explain(X, last)
    pytest.importorskip("anywidget")
    with pytest.raises(ValueError, match=r"explanation of a class.*last"):
        found.explore()
    with pytest.raises((TypeError, ValueError), match=r"target: expected"):
        mg.compare(IMAGES, PHOTOS, methods=["simple-gradient"], target=last)

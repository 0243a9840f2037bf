import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from moreaugrad.score.outputs import tensor_output
from moreaugrad.score.targets import KINDS, Readout, Target

TABLE = torch.tensor(
    [[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-4.0, 3.0, 3.0], [80.0, -80.0, 0.0]], dtype=torch.float64
)
CLASSES = torch.tensor([0, 1, 2, 1])


def by_hand(kind: str, row: list[float], c: int) -> float:
    """One multiclass score from its definition."""
    highest = max(row)
    log_total = highest + math.log(sum(math.exp(v - highest) for v in row))
    return {
        "logit": row[c],
        "log-probability": row[c] - log_total,
        "probability": math.exp(row[c] - log_total),
        "margin": row[c] - max(v for k, v in enumerate(row) if k != c),
        "cross-entropy": log_total - row[c],
    }[kind]


def two_class_by_hand(kind: str, s: float) -> float:
    """One binary or multilabel score from the log-odds `s` of its target."""
    softplus = max(-s, 0.0) + math.log1p(math.exp(-abs(s)))
    return {
        "logit": s,
        "log-probability": -softplus,
        "probability": math.exp(-softplus),
        "margin": s,
        "cross-entropy": softplus,
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_multiclass_scores(kind: str) -> None:
    found = Readout(kind=kind).read(TABLE, Target(CLASSES))
    expected = [by_hand(kind, row, c) for row, c in zip(TABLE.tolist(), CLASSES, strict=True)]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [0, 1])
def test_binary_scores(kind: str, columns: int) -> None:
    logits = torch.tensor([2.0, 2.0, -0.3, 50.0], dtype=torch.float64)
    classes = torch.tensor([1, 0, 0, 0])
    outputs = logits[:, None] if columns else logits
    found = Readout(kind=kind).read(outputs, Target(classes))
    odds = [2.0, -2.0, 0.3, -50.0]
    assert found.tolist() == pytest.approx([two_class_by_hand(kind, s) for s in odds])


@pytest.mark.parametrize("kind", KINDS)
def test_multilabel_scores(kind: str) -> None:
    found = Readout(kind=kind, task="multilabel").read(TABLE, Target(CLASSES))
    odds = [row[c] for row, c in zip(TABLE.tolist(), CLASSES, strict=True)]
    assert found.tolist() == pytest.approx([two_class_by_hand(kind, s) for s in odds])


def test_regression_reads_the_plain_output() -> None:
    assert Readout(task="regression").read(TABLE, Target(CLASSES)).tolist() == [
        2.0,
        0.2,
        3.0,
        -80.0,
    ]
    one = Readout(task="regression").read(TABLE[:, 1], Target(torch.zeros(4, dtype=torch.long)))
    assert one.tolist() == TABLE[:, 1].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_gradients_match_differences(kind: str, task: str) -> None:
    outputs = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    read = Readout(kind=kind, task=task).read
    assert torch.autograd.gradcheck(lambda t: read(t, Target(CLASSES)), (outputs,))


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_outputs_keep_finite_scores_and_gradients(kind: str) -> None:
    for task, outputs in (
        ("multiclass", torch.tensor([[500.0, -500.0], [-500.0, 500.0]])),
        ("binary", torch.tensor([[500.0], [-500.0]])),
    ):
        outputs.requires_grad_()
        score = Readout(kind=kind, task=task).read(outputs, Target(torch.tensor([0, 0])))
        (gradient,) = torch.autograd.grad(score.sum(), outputs)
        assert torch.isfinite(score).all()
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    "target",
    [
        1,
        torch.tensor(1),
        torch.tensor([1]),
        torch.tensor([1, 1, 1, 1]),
        torch.tensor([[1], [1], [1], [1]]),
        torch.tensor([1, 1, 1, 1], dtype=torch.int32),
        [1, 1, 1, 1],
        [1],
        (1,),
        [(1,), (1,), (1,), (1,)],
    ],
)
def test_every_form_of_one_class(target: object) -> None:
    found, prediction = Readout().resolve(TABLE, target)
    assert found.classes.tolist() == [1, 1, 1, 1]
    assert found.classes.dtype == torch.long
    assert found.positions is None
    assert prediction.tolist() == TABLE.argmax(1).tolist()


@pytest.mark.parametrize(
    "target", [torch.tensor([0, 2, 1, 0]), torch.tensor([[0], [2], [1], [0]]), [0, 2, 1, 0]]
)
def test_a_class_for_each_sample(target: object) -> None:
    assert Readout().resolve(TABLE, target)[0].classes.tolist() == [0, 2, 1, 0]


def test_the_prediction_is_the_default_target() -> None:
    found, prediction = Readout().resolve(TABLE, None)
    assert torch.equal(found.classes, TABLE.argmax(1))
    assert torch.equal(prediction, TABLE.argmax(1))
    logits = torch.tensor([-0.1, 0.0, 0.1])
    for outputs in (logits, logits[:, None]):
        assert Readout().resolve(outputs, None)[0].classes.tolist() == [0, 0, 1]


def test_a_prediction_is_reported_with_another_target() -> None:
    found, prediction = Readout().resolve(torch.tensor([-0.1, 0.1]), [1, 0])
    assert (found.classes.tolist(), prediction.tolist()) == ([1, 0], [0, 1])


def test_a_single_regression_output_needs_no_target() -> None:
    found, _ = Readout(task="regression").resolve(torch.randn(3), None)
    assert found.classes.tolist() == [0, 0, 0]


def test_positions_in_outputs_with_more_dimensions() -> None:
    outputs = torch.randn(2, 3, 4, 5)
    same, _ = Readout().resolve(outputs, (1, 2, 4))
    assert Readout().read(outputs, same).tolist() == outputs[:, 1, 2, 4].tolist()
    each, prediction = Readout().resolve(outputs, [(0, 3, 0), (2, 1, 1)])
    expected = [outputs[0, 0, 3, 0].item(), outputs[1, 2, 1, 1].item()]
    assert Readout().read(outputs, each).tolist() == expected
    assert prediction.tolist() == [
        outputs[0, :, 3, 0].argmax().item(),
        outputs[1, :, 1, 1].argmax().item(),
    ]
    picked = each.select(torch.tensor([1]))
    assert Readout().read(outputs[1:], picked).tolist() == expected[1:]
    probability = Readout(kind="probability").read(outputs, each)
    torch.testing.assert_close(probability[0], outputs[0, :, 3, 0].softmax(0)[0])


@dataclass
class Output:
    logits: object


def test_outputs_that_carry_logits() -> None:
    assert tensor_output(Output(TABLE)) is TABLE
    for bad in (Output(3), (TABLE,), None):
        with pytest.raises(TypeError, match="wrap the model so that it returns its scores"):
            tensor_output(bad)
    with pytest.raises(TypeError, match=r"floating-point outputs, got torch.int64"):
        tensor_output(torch.tensor([1]))


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (3, ValueError, r"from 0 to 2, got \[3, 3, 3, 3\]"),
        (-1, ValueError, "from 0 to 2"),
        ([0, 1, 2, 7], ValueError, r"from 0 to 2, got \[0, 1, 2, 7\]"),
        ([0, 1], ValueError, r"expected one class, or 4 \(one a sample\), got shape \(2,\)"),
        (torch.zeros(4, 2, dtype=torch.long), ValueError, r"got shape \(4, 2\)"),
        ([(0,), (1,)], ValueError, "expected 4 entries, one a sample, got 2"),
        ((), ValueError, r"expected ints, or tuples \(class, position, ...\) of the same length"),
        ((0, 1), ValueError, r"expected a tuple \(class\) for outputs of shape \(4, 3\)"),
        ([(0,), (1, 2), (1,), (1,)], ValueError, "of the same length, got"),
        ([1, (2,), 1, 1], ValueError, "of the same length, got"),
        (1.0, TypeError, "got float"),
        ("cat", TypeError, "got str"),
        (True, TypeError, "got bool"),
        (torch.tensor([1.0]), TypeError, "expected integers, got torch.float32"),
        (torch.tensor([True]), TypeError, "expected integers, got torch.bool"),
    ],
)
def test_bad_targets_are_reported(target: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Readout().resolve(TABLE, target)


def test_missing_and_bad_positions_are_reported() -> None:
    outputs = torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match=r"expected a tuple \(class, position\) .* got None"):
        Readout().resolve(outputs, None)
    with pytest.raises(ValueError, match=r"target position: expected numbers from 0 to \[3\]"):
        Readout().resolve(outputs, (1, 4))


@pytest.mark.parametrize(
    ("outputs", "kind", "task", "message"),
    [
        (torch.zeros(2, 1), "logit", "multiclass", "expected at least 2 outputs"),
        (torch.zeros(2, 3), "logit", "binary", "expected a single logit for 'binary', got 3"),
        (torch.zeros(2, 3), "margin", "regression", "a regression has no margin"),
        (torch.zeros(2, 3), "logit", "regression", "a regression with 3 outputs, got None"),
    ],
)
def test_outputs_that_do_not_fit_are_reported(
    outputs: Tensor, kind: str, task: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Readout(kind=kind, task=task).resolve(outputs, None)


def test_unknown_kinds_and_tasks_are_reported() -> None:
    with pytest.raises(ValueError, match=r"score: .* did you mean 'probability'\?"):
        Readout(kind="probabilty")
    with pytest.raises(ValueError, match=r"task: .* did you mean 'multilabel'\?"):
        Readout(task="multi-label")


def test_the_probability_of_one_multilabel_output_is_that_of_its_class() -> None:
    outputs = torch.tensor([[2.0], [-1.0]])
    found = Readout(task="multilabel").probabilities(outputs)
    assert torch.equal(found, torch.sigmoid(outputs))

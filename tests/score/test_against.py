"""One class against another: the difference of their logits."""

import pytest
import torch

import moreaugrad as mg
import toys

MODEL, X = toys.network((5, 8, 3)), toys.normal(4, 5, seed=3)


def test_it_is_the_difference_of_the_logits() -> None:
    out = MODEL(X)
    bound = mg.Score(MODEL, kind="against:2").bind(X, [0, 1, 1, 0])
    expected = out.gather(1, torch.tensor([[0], [1], [1], [0]]))[:, 0] - out[:, 2]
    assert torch.allclose(bound.value_and_grad()[0], expected)


def test_its_gradient_is_the_difference_of_the_gradients() -> None:
    one, other, both = (
        mg.SimpleGradient(MODEL, **({"score": score} if score else {})).attribute(X, target)
        for target, score in ((0, ""), (1, ""), (0, "against:1"))
    )
    assert torch.allclose(both, one - other, atol=1e-12)


def test_probabilities_are_those_of_the_network() -> None:
    x = X[:1].clone()
    values = mg.metrics.deletion_curve(
        mg.SimpleGradient(MODEL, score="against:1").bind(x, 0), x.abs(), steps=2
    )
    assert torch.allclose(values[0, 0], MODEL(x).softmax(1)[0, 0].double())


@pytest.mark.parametrize("kind", ["against:3", "against:x", "against", "against:-1"])
def test_what_is_no_class_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"score"):
        mg.SimpleGradient(MODEL, score=kind).explain(X, 0)


def test_a_single_output_has_no_other_class() -> None:
    with pytest.raises(ValueError, match="each class"):
        mg.SimpleGradient(toys.network((5, 8, 1)), score="against:0").explain(X, 1)


def test_a_class_is_not_compared_with_itself() -> None:
    with pytest.raises(ValueError, match=r"another class.*\b2\b"):
        mg.SimpleGradient(MODEL, score="against:1").explain(X, [0, 2, 1, 0])
    predicted = int(MODEL(X[:1]).argmax())
    with pytest.raises(ValueError, match="another class"):
        mg.SimpleGradient(MODEL, score=f"against:{predicted}").explain(X[:1])

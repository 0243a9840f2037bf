"""Which number is explained: targets, tasks, forms of output, arguments, layers, and the sign."""

import itertools

import pytest
import torch

from contracts.networks import (
    LOG_PROBABILITY,
    ONE_IMAGE,
    SCALE_FREE,
    UNSIGNED,
    Picture,
    Rising,
    Segmentation,
    Text,
    assert_same,
    cheap,
    default_score,
    pictures,
    with_logits,
)
from moreaugrad.score.targets import KINDS

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")


def test_a_rising_score_has_a_positive_map(method: str) -> None:
    x = pictures(3)[:, :1, :4, :4].abs() + 0.1
    rising = cheap(method, Rising()).attribute(x, target=1)
    assert (rising >= 0).all()
    assert (rising.flatten(1).amax(1) > 0).all()
    falling = cheap(method, Rising()).attribute(x, target=0)
    if method in UNSIGNED:
        assert (falling >= 0).all()
        return
    assert (falling <= 0).all()
    assert (falling.flatten(1).amin(1) < 0).all()


def test_forms_of_one_target_agree(method: str) -> None:
    explainer, x = cheap(method, Picture()), pictures()
    expected = explainer.attribute(x, target=2)
    forms = [
        torch.full((4,), 2),
        torch.full((4, 1), 2),
        torch.full((4,), 2, dtype=torch.int32),
        torch.tensor(2),
        torch.tensor([2]),
        [2, 2, 2, 2],
        (2,),
        [(2,)] * 4,
    ]
    for target in forms:
        assert_same(explainer.attribute(x, target=target), expected, 0.0)


def test_each_sample_has_its_own_target(method: str) -> None:
    explainer, x = cheap(method, Picture()), pictures(3)
    maps = explainer.attribute(x, target=[2, 0, 1])
    for i, target in enumerate([2, 0, 1]):
        assert_same(maps[i : i + 1], explainer.attribute(x[i : i + 1], target=target))


def test_no_target_is_the_prediction(method: str) -> None:
    model, x = Picture(), pictures()
    explainer = cheap(method, model)
    result = explainer.explain(x)
    assert torch.equal(result.target, model(x).argmax(1))
    assert_same(result.maps, explainer.attribute(x, target=model(x).argmax(1)), 0.0)


def test_positions_of_an_output_with_more_dimensions(method: str) -> None:
    explainer, x = cheap(method, Segmentation()), pictures(2)
    one = explainer.attribute(x, target=(1, 0, 3))
    assert_same(explainer.attribute(x, target=[(1, 0, 3), (1, 0, 3)]), one, 0.0)
    other = explainer.attribute(x, target=[(1, 0, 3), (2, 3, 0)])
    assert_same(other[:1], one[:1])
    assert_same(other[1:], explainer.attribute(x[1:], target=(2, 3, 0)))
    if method not in ONE_IMAGE:  # the output at a corner does not see the other one
        assert not one[:, :, 3:, :3].any()


def test_a_single_logit_with_and_without_its_column(method: str) -> None:
    flat, column = Picture(outputs=0), Picture(outputs=1)
    x = pictures()
    for target in (None, 1, [0, 1, 1, 0]):
        result = cheap(method, flat).explain(x, target)
        assert_same(result.maps, cheap(method, column).explain(x, target).maps)
        assert torch.equal(result.prediction, (flat(x) > 0).long())
        classes = result.prediction if target is None else torch.tensor(target).expand(4)
        evidence = flat(x) * (2 * classes - 1)
        if default_score(method) == "log-probability":
            evidence = torch.nn.functional.logsigmoid(evidence)
        torch.testing.assert_close(result.score, evidence)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("task", "outputs"), [("multiclass", 3), ("multilabel", 3), ("binary", 1), ("regression", 2)]
)
def test_kinds_of_score(method: str, kind: str, task: str, outputs: int) -> None:
    if method in LOG_PROBABILITY and kind != "log-probability":
        with pytest.raises(ValueError, match=rf"score: expected 'log-probability'.*got '{kind}'"):
            cheap(method, Picture(outputs), score=kind)
        return
    if task == "regression" and kind != "logit":
        with pytest.raises(ValueError, match=rf"a regression has no {kind}; use score='logit'"):
            cheap(method, Picture(outputs), score=kind, task=task).explain(pictures(), 0)
        return
    model, x = Picture(outputs), pictures()
    target = torch.tensor([0, 1, 1, 0]) % outputs
    result = cheap(method, model, score=kind, task=task).explain(x, target)
    assert torch.isfinite(result.maps).all()
    assert result.maps.any()
    column = model(x).gather(1, target[:, None])[:, 0]
    log_probability = torch.nn.functional.logsigmoid(column)
    if task == "multiclass":
        log_probability = model(x).log_softmax(1).gather(1, target[:, None])[:, 0]
    if task == "binary":  # target 0 is the other side of the only logit
        column = -column
        log_probability = torch.nn.functional.logsigmoid(column)
    others = model(x).scatter(1, target[:, None], -torch.inf).amax(1) if outputs > 1 else 0
    expected = {
        "logit": column,
        "log-probability": log_probability,
        "probability": log_probability.exp(),
        "margin": column - others if task == "multiclass" else column,
        "cross-entropy": -log_probability,
    }
    torch.testing.assert_close(result.score, expected[kind])


def test_outputs_that_carry_logits(method: str) -> None:
    x = pictures()
    expected = cheap(method, Picture()).attribute(x, target=1)
    assert_same(cheap(method, with_logits()).attribute(x, target=1), expected)


def test_additional_arguments_follow_their_samples(method: str) -> None:
    explainer, x = cheap(method, Picture(), batch_size=3), pictures(5)
    gain = torch.linspace(0.5, 2, 5, dtype=x.dtype)
    maps = explainer.attribute(x, target=1, additional_forward_args=(gain, 2.0))
    for i in range(5):
        rows = slice(i, i + 1)
        args = gain[rows], 2.0
        alone = explainer.attribute(x[rows], target=1, additional_forward_args=args)
        assert_same(maps[rows], alone)
    only = explainer.attribute(x, target=1, additional_forward_args=gain)
    assert_same(only, explainer.attribute(x, target=1, additional_forward_args=(gain, 1.0)), 0.0)
    if method in SCALE_FREE:
        assert_same(only, maps)
    else:
        assert not torch.equal(only, maps)


def test_a_layer_is_explained_in_place_of_the_input(method: str) -> None:
    model = Text()
    ids = torch.tensor([[1, 5, 2, 8], [0, 3, 3, 7], [4, 4, 6, 1]])
    mask = torch.tensor([[1.0, 1, 1, 0]]).double().expand(3, -1)
    if method in ONE_IMAGE:
        with pytest.raises(ValueError, match=r"explains the input itself.*cam_layer="):
            cheap(method, model, layer="embedding")
        return
    explainer = cheap(method, model, layer="embedding")
    result = explainer.explain(ids, [0, 2, 1], mask)
    assert result.maps.shape == (3, 4, 5)
    torch.testing.assert_close(result.inputs, model.embedding(ids))
    assert not result.maps[:, 3].any()  # masked out
    assert result.maps[:, :3].any()
    by_module = cheap(method, model, layer=model.embedding)
    assert_same(by_module.explain(ids, [0, 2, 1], mask).maps, result.maps, 0.0)
    assert by_module.settings()["layer"] == "embedding"
    for i, target in enumerate([0, 2, 1]):
        rows = slice(i, i + 1)
        assert_same(explainer.explain(ids[rows], target, mask[rows]).maps, result.maps[rows])


def test_a_layer_within_the_model(method: str) -> None:
    if method in ONE_IMAGE:
        pytest.skip(f"{method} explains the input itself")
    model, x = Picture(), pictures(3)
    for frozen, layer in itertools.product((False, True), ("body.0", "norm")):
        model.requires_grad_(not frozen)
        result = cheap(method, model, layer=layer).explain(x, 1)
        assert result.maps.shape == result.inputs.shape
        assert result.maps.any()

"""What goes in and what comes out: shapes, types, devices, memory formats."""

import pytest
import torch

from contracts.networks import (
    KEPT,
    ONE_IMAGE,
    Joint,
    Picture,
    assert_same,
    cheap,
    columns,
    default_score,
    pictures,
)
from moreaugrad import METHODS, Status

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_tensor_gives_a_tensor_like_it(method: str, dtype: torch.dtype, device: str) -> None:
    x = pictures(3, dtype).to(device)
    explainer = cheap(method, Picture(dtype=dtype).to(device))
    maps = explainer.attribute(x, target=1)
    assert isinstance(maps, torch.Tensor)
    assert (maps.shape, maps.dtype, maps.device) == (x.shape, dtype, x.device)
    assert not maps.requires_grad
    assert torch.isfinite(maps).all()
    exact = cheap(method, Picture()).attribute(x.double().cpu(), target=1)
    alike = torch.cosine_similarity(maps.double().cpu().flatten(1), exact.flatten(1))
    if dtype == torch.bfloat16:  # close, or said to be off
        told = torch.tensor([not status.ok for status in explainer.explain(x, 1).status])
        assert ((alike > 0.8) | told).all()
    else:
        assert (alike > 1 - 1e-5).all()


def test_a_tuple_gives_a_tuple_like_it(method: str) -> None:
    inputs = pictures(3), columns(3)
    explainer = cheap(method, Joint())
    if method in ONE_IMAGE:
        with pytest.raises(ValueError, match=r"expected one input, got 2; .* additional_forward_"):
            explainer.attribute(inputs, target=1)
        return
    maps = explainer.attribute(inputs, target=1)
    assert isinstance(maps, tuple)
    assert [part.shape for part in maps] == [x.shape for x in inputs]
    result = explainer.explain(inputs, 1)
    assert isinstance(result.inputs, tuple)
    assert all(map(torch.equal, result.inputs, inputs))


def test_a_tuple_of_one_gives_a_tuple_of_one(method: str) -> None:
    explainer = cheap(method, Picture())
    maps = explainer.attribute((pictures(),), target=1)
    assert isinstance(maps, tuple)
    assert_same(maps, (explainer.attribute(pictures(), target=1),))


def test_memory_formats_do_not_matter(method: str) -> None:
    x = pictures()
    explainer = cheap(method, Picture())
    expected = explainer.attribute(x, target=1)
    channels_last = x.to(memory_format=torch.channels_last)
    strided = torch.empty(4, 2, 6, 12, dtype=x.dtype)[..., ::2].copy_(x)
    turned = x.transpose(2, 3).contiguous().transpose(2, 3)
    shared = x[:1].expand(4, -1, -1, -1)
    for other in (channels_last, strided, turned):
        assert_same(explainer.attribute(other, target=1), expected)
    assert_same(explainer.attribute(shared, target=1), expected[:1].expand(4, -1, -1, -1))


def test_inputs_stay_as_they_are(method: str) -> None:
    x = pictures().requires_grad_()
    before = x.detach().clone()
    explainer = cheap(method, Picture())
    maps = explainer.attribute(x, target=1)
    assert x.requires_grad
    assert x.is_leaf
    assert x.grad is None
    assert torch.equal(x, before)
    assert_same(maps, explainer.attribute(before, target=1), 0.0)


def test_the_explanation_of_a_batch(method: str) -> None:
    x = pictures()
    model = Picture()
    result = cheap(method, model).explain(x, [0, 1, 2, 1])
    assert len(result) == 4
    assert result.maps.shape == x.shape
    assert torch.equal(result.inputs, x)
    assert result.target.tolist() == [0, 1, 2, 1]
    assert torch.equal(result.prediction, model(x).argmax(1))
    outputs = model(x)
    if default_score(method) == "log-probability":
        outputs = outputs.log_softmax(1)
    torch.testing.assert_close(result.score, outputs[range(4), [0, 1, 2, 1]])
    assert len(result.status) == 4
    assert all(isinstance(status, Status) for status in result.status)
    for values in (result.residual, result.error, result.eta, result.zeros):
        assert values.shape == (4,)
        assert values.is_floating_point()
    for counts in (result.steps, result.evaluations):
        assert counts.shape == (4,)
        assert counts.dtype == torch.long
    assert (result.evaluations >= 1).all()
    assert ((result.error >= 0) | result.error.isnan()).all()
    flat = result.maps.flatten(1)
    torch.testing.assert_close(result.zeros, (flat == 0).double().mean(1))
    if result.z_scores is not None:
        assert result.z_scores.shape == result.certain().shape == x.shape
        assert ((result.z_scores >= 0) | result.z_scores.isnan()).all()
    one = result[2]
    assert (len(one), one.status) == (1, result.status[2:3])
    assert torch.equal(one.maps, result.maps[2:3])


def test_evaluations_are_counted(method: str) -> None:
    if method in KEPT:
        pytest.skip(f"{method} has other passes too, or goes back through one again and again")
    model = Picture()
    seen = 0

    def count(_module: object, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal seen
        seen += len(args[0]) * torch.is_grad_enabled()

    model.register_forward_pre_hook(count)
    result = cheap(method, model, check=False).explain(pictures(3), 1)
    # The pass of one sample by which the rules of a centre are found is not counted, as the check.
    followed = "centre" in result.settings and result.settings["sigma"] > 0
    assert seen - int(result.evaluations.sum()) == followed
    checked = cheap(method, model).explain(pictures(3), 1)
    assert torch.equal(checked.evaluations, result.evaluations)  # the check is not counted


def test_evaluations_stay_within_what_is_allowed(method: str) -> None:
    if "max_evaluations" not in METHODS[method].defaults():
        pytest.skip(f"{method} has a fixed number of evaluations")
    # Networks of low precision, where nothing converges.
    explainer = cheap(method, Picture(dtype=torch.bfloat16), tolerance=1e-6)
    result = explainer.explain(pictures(3, torch.bfloat16), 1)
    assert (result.evaluations <= explainer.settings()["max_evaluations"]).all()


def test_progress_counts_samples_up_to_all(method: str) -> None:
    told: list[tuple[float, int]] = []
    explainer = cheap(method, Picture(), batch_size=2)
    explainer.explain(pictures(9), 1, progress=lambda done, of: told.append((done, of)))
    done = [number for number, _ in told]
    assert done == sorted(done)
    assert done[-1] == 9
    assert {of for _, of in told} == {9}

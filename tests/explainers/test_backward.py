"""Methods by the balanced backward pass: what they state, who takes it, and real transformers."""

import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import moreaugrad as mg
from moreaugrad.data.layouts import open_dataset
from moreaugrad.explainers.patches import patch_size
from moreaugrad.models import LoadedModel
from text_models import SENTENCES, WIDTH, hugging_face, write
from toys import normal

TAKE_IT = {"simple-gradient", "gradient-x-input", "sparse-gradient", "smoothgrad",
           "sparse-smoothgrad", "sparsified-smoothgrad"}  # fmt: skip
FEW = {"smoothgrad": {"samples": 8}, "sparse-smoothgrad": {"samples": 8},
       "sparsified-smoothgrad": {"samples": 8}}  # fmt: skip


def transformer(seed: int = 0) -> nn.Module:
    """`[B, 3, 16, 16]` to four logits, with patches of 4 pixels."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 4, 4), nn.Flatten(2), nn.Unflatten(2, (16,)), nn.Flatten(1),
        nn.Unflatten(1, (16, 16)), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        nn.Flatten(), nn.Linear(256, 4),
    )  # fmt: skip
    with torch.no_grad():
        for at, weight in enumerate(net.parameters()):
            weight.copy_(normal(*weight.shape, seed=seed + at).float() / weight.shape[-1] ** 0.5)
    return net.eval()


def images(batch: int = 3) -> Tensor:
    return normal(batch, 3, 16, 16, seed=5, dtype=torch.float32)


@pytest.mark.parametrize("method", sorted(TAKE_IT))
def test_the_methods_that_take_it(method: str) -> None:
    net, x = transformer(), images()
    found = mg.build(method, net, backward="balanced", **FEW.get(method, {})).explain(x, 1)
    assert found.ok
    assert found.settings["backward"] == "balanced"
    assert float(found.details["completeness_error"].max()) < 1e-4
    exact = mg.build(method, net, **FEW.get(method, {})).explain(x, 1)
    assert torch.equal(found.evaluations, exact.evaluations + 1)
    assert torch.equal(found.score, exact.score)
    assert not torch.allclose(found.maps, exact.maps, rtol=0.1)
    alone = mg.build(method, net, backward="balanced", **FEW.get(method, {})).explain(x[2:], 1)
    torch.testing.assert_close(alone.maps, found.maps[2:], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", sorted({*mg.METHODS} - TAKE_IT))
def test_other_methods_refuse_it(method: str) -> None:
    with pytest.raises(ValueError, match="no setting 'backward'"):
        mg.build(method, transformer(), backward="balanced")
    with pytest.raises(TypeError, match="backward: the map is defined by the score's own gradient"):
        mg.METHODS[method].load()(transformer(), backward="balanced")


def test_a_name_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="backward: expected one of exact, balanced"):
        mg.SimpleGradient(transformer(), backward="libra")


def test_the_mean_over_noise_is_that_of_single_maps() -> None:
    net, x = transformer(), images(1)
    smooth = mg.SmoothGrad(net, backward="balanced", samples=8, centre=False)
    single = mg.SimpleGradient(net, backward="balanced", check=False)
    bound = smooth.bind(x, 1)
    points = []
    bound.mean(lambda p, _: (points.append(p.clone()), p)[1:])
    expected = single.attribute(torch.cat(points).reshape(-1, 3, 16, 16), 1).mean(0, keepdim=True)
    torch.testing.assert_close(smooth.attribute(x, 1), expected, rtol=1e-3, atol=1e-5)


def test_there_is_no_derivative_of_the_map() -> None:
    explainer = mg.SmoothGrad(transformer(), backward="balanced", samples=4)
    found = explainer.explain(images(1), 1)
    with pytest.raises(ValueError, match="no derivative with backward='balanced'"):
        explainer.vjp(found, found.maps)
    with pytest.raises((ValueError, TypeError), match="derivative"):
        mg.attacks.build("top-k", explainer, epsilon=0.1).run(images(1), 1)


def test_curvature_needs_the_exact_one() -> None:
    explainer = mg.SmoothGrad(transformer(), backward="balanced", samples=4)
    found = explainer.explain(images(1), 1)
    for use in (
        lambda: mg.interactions(explainer, found, most=2, samples=2),
        lambda: mg.rho_guidance(explainer, images(1), 1),
        lambda: mg.certificates.sampled_lipschitz(explainer.bind(images(1), 1), 0.1, 2),
    ):
        with pytest.raises(ValueError, match="backward: expected 'exact' for curvature"):
            use()


def test_the_bounds_of_certificates_hold_for_any_map_of_gradients() -> None:
    """They use that each noise sample's h is in [0, 1], not where it comes from."""
    explainer = mg.SparsifiedSmoothGrad(transformer(), backward="balanced", samples=16)
    moments = explainer.moments(images(1), 1)
    maps = explainer.attribute(images(1), 1).flatten(1)
    torch.testing.assert_close(moments.mean.float(), maps, rtol=1e-4, atol=1e-6)


def test_the_model_is_left_as_it_was() -> None:
    net, x = transformer(), images()
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    outputs = net(x)
    mg.SimpleGradient(net, backward="balanced").attribute(x, 1)
    assert torch.equal(net(x), outputs)
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in net.parameters())
    leaf = x.clone().requires_grad_()
    (exact,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(mg.SimpleGradient(net).attribute(x, 1), exact)


def test_threads_with_either_backward_pass() -> None:
    net, x = transformer(), images(2)
    explainers = [mg.SimpleGradient(net, backward=name) for name in ("exact", "balanced")] * 2
    expected = [one.attribute(x, 1) for one in explainers]
    found: list[Tensor | None] = [None] * len(explainers)

    def work(place: int) -> None:
        for _ in range(3):
            found[place] = explainers[place].attribute(x, 1)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(explainers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_frames_and_saved_files_have_the_error(tmp_path: Path) -> None:
    explainer = mg.SmoothGrad(transformer(), backward="balanced", samples=64)
    *_, last = explainer.frames(images(1), 1)
    result = explainer.explain(images(1), 1)
    error = result.details["completeness_error"]
    assert torch.equal(last.explanation.details["completeness_error"], error)
    result.save(tmp_path / "result.safetensors")
    again = mg.Explanation.load(tmp_path / "result.safetensors")
    assert torch.equal(again.details["completeness_error"], error)


@pytest.mark.parametrize(
    "name",
    ["BertForSequenceClassification", "DistilBertForSequenceClassification",
     "GPT2ForSequenceClassification"],
)  # fmt: skip
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_language_models(name: str, attention: str, tmp_path: Path) -> None:
    transformers = hugging_face()
    write(transformers, tmp_path, name)
    module = getattr(transformers, name).from_pretrained(tmp_path, attn_implementation=attention)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(SENTENCES[0], return_tensors="pt")["input_ids"]
    layer = "transformer.wte" if name.startswith("GPT2") else next(
        key for key, part in module.named_modules() if isinstance(part, nn.Embedding)
    )  # fmt: skip
    net = module.double().eval()
    explainer = mg.SimpleGradient(_Logits(net), layer=f"net.{layer}", backward="balanced")
    found = explainer.explain(ids, 1)
    assert found.maps.shape[2] == WIDTH
    assert float(found.details["completeness_error"]) < 1e-6
    assert float(found.maps.abs().max()) > 0


class _Logits(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, ids: Tensor) -> Tensor:
        return self.net(ids).logits


@pytest.fixture
def vision(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(str(data_folder / "models"))
    yield importlib.import_module("vit_cifar10")
    sys.modules.pop("vit_cifar10", None)


def _photos(loaded: LoadedModel, folder: Path, count: int = 3) -> Tensor:
    data = open_dataset(folder / "cifar10-jpeg.zip")
    return torch.stack([loaded.preprocess(data.load(item)) for item in data.items[:count]])


@pytest.mark.parametrize("kind", ["gelu", "relu"])
def test_real_vision_transformers(kind: str, vision: object, data_folder: Path) -> None:
    loaded = getattr(vision, kind)()
    x = _photos(loaded, data_folder)
    found = mg.build("gradient-x-input", loaded.module, backward="balanced").explain(x)
    assert found.ok
    assert float(found.details["completeness_error"].max()) < 1e-4
    double = mg.build("gradient-x-input", loaded.module.double(), backward="balanced")
    assert float(double.explain(x.double()).details["completeness_error"].max()) < 1e-11
    blocks = mg.GroupSparseMoreauGrad(loaded.module.float(), max_evaluations=16, draws=2)
    with pytest.warns(mg.ConvergenceWarning):
        maps = blocks.attribute(x[:1])
    zero = (maps == 0).all(1).unfold(1, 4, 4).unfold(2, 4, 4).flatten(3)
    assert torch.equal(zero.any(3), zero.all(3))
    assert 0.85 < float(zero.all(3).double().mean()) < 0.95


def test_groups_are_the_patches_where_they_are_recognised() -> None:
    shape = (3, 16, 16)
    assert patch_size(transformer(), shape) == [4, 4]
    settings = {"sigma": 0, "max_evaluations": 2}
    found = mg.GroupSparseMoreauGrad(transformer(), **settings).explain(images(1), 1)
    assert (found.settings["group"], found.settings["group_size"]) == ("auto", [4, 4])
    given = mg.GroupSparseMoreauGrad(transformer(), group=2, **settings).explain(images(1), 1)
    assert given.settings["group"] == 2
    assert "group_size" not in given.settings
    for other in (nn.Conv2d(3, 8, 4, 2), nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 4, 4, 2),
                  nn.Conv2d(3, 8, 3, 3), nn.Conv2d(1, 8, 4, 4), nn.Conv1d(3, 8, 4, 4),
                  nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 1))):  # fmt: skip
        assert patch_size(other, shape) is None
    assert patch_size(torch.sin, shape) is None
    assert patch_size(nn.Conv3d(1, 8, (2, 4, 4), (2, 4, 4)), (1, 8, 16, 16)) == [2, 4, 4]

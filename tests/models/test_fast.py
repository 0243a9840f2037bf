"""A network made faster: the same function, what is left out and why, and the errors stated."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import moreaugrad as mg
from models.test_folding import Plain, awake, norms
from moreaugrad.models import fast, optimise
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.common import ComputePlan, ModelPlan


class ReadsItsType(nn.Module):
    """Behaves otherwise once it is folded, which only its output shows."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        out = self.norm(self.conv(x)).mean((2, 3))
        return out * (2 if isinstance(self.norm, nn.Identity) else 1)


class OnlyFloat32(nn.Module):
    """Fails in another precision, as code does that makes tensors of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return torch.matmul(self.conv(x).mean((2, 3)), torch.ones(4, 2) * torch.arange(1.0, 3))


class Uncopyable(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.lock = (number for number in ())

    def forward(self, x):
        return self.conv(x).mean((2, 3))


class Logits:
    def __init__(self, logits):
        self.logits = logits


class HuggingFaceLike(nn.Module):
    """Code that cannot be traced, an output object, a keyword."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv, self.head = nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, pixel_values, scale=1.0):
        if pixel_values.shape[1] != 3 or pixel_values.sum().isnan():
            raise ValueError("three channels")
        return Logits(self.head(F.silu(self.conv(self.norm(pixel_values))).mean((2, 3))) * scale)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 5), nn.Linear(5, 3)

    def forward(self, ids):
        return self.head(torch.tanh(self.embedding(ids)).mean(1))


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, 9, 9, generator=generator)


def results(module, x):
    """Outputs, and the input gradients of the class that is likeliest."""
    x = x.clone().requires_grad_()
    out = module(x)
    out = out.logits if isinstance(out, Logits) else out
    return out.detach(), x, out


def gradients(module, x, target):
    out, x, recorded = results(module, x)
    (found,) = torch.autograd.grad(recorded.gather(1, target[:, None]).sum(), x)
    return out, found


def relative(after, before):
    """The largest over samples, written out."""
    found = []
    for a, b in zip(after.double(), before.double(), strict=True):
        found.append(float((a - b).square().sum().sqrt() / b.square().sum().sqrt()))
    return max(found)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_errors_stated_are_those_measured(dtype, x):
    module = awake(Plain())
    found = optimise(module, x, dtype=dtype)
    assert [step.name for step in found.steps if step.applied] == (
        ["fold_batchnorm", "channels_last"] + ["dtype"] * (dtype is not None)
    )
    target = results(module, x)[0].argmax(1)
    before = gradients(module, x, target)
    # One step more each time.
    networks = [
        optimise(module, None, channels_last=False),
        optimise(module, None),
        optimise(module, None, dtype=dtype),
    ]
    for step, network in zip(found.steps, networks, strict=False):
        assert step.output_error is not None
        after = gradients(network.model, x, target)
        assert step.output_error == pytest.approx(relative(after[0], before[0]), rel=1e-4)
        assert step.gradient_error == pytest.approx(relative(after[1], before[1]), rel=1e-4)
        before = after
    exact = gradients(module, x, target)
    after = gradients(optimise(module, x).model, x, target)
    for a, b in zip(after, exact, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert found.steps[1].output_error < 1e-5
    if dtype is not None:
        assert found.steps[2].output_error > 1e-4


def test_the_given_network_stays_as_it_was(x):
    module = awake(Plain())
    state, strides = copy.deepcopy(module.state_dict()), [p.stride() for p in module.parameters()]
    before = torch.get_rng_state()
    found = optimise(module, x, dtype=torch.bfloat16)
    assert found.original is module
    assert found.model is not module
    assert norms(found.model) == 0
    assert norms(module) == 2
    assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())
    assert [p.stride() for p in module.parameters()] == strides
    assert not module._forward_hooks
    assert torch.equal(before, torch.get_rng_state())
    weights = {p.data_ptr() for p in module.parameters()}
    assert not weights & {p.data_ptr() for p in found.model.parameters()}


def test_maps_of_the_faster_network_are_the_same(x):
    module = awake(Plain())
    fast_one = optimise(module, x).model
    for method in (mg.SimpleGradient, mg.SmoothGrad):
        torch.testing.assert_close(
            method(fast_one).attribute(x), method(module).attribute(x), atol=1e-5, rtol=1e-3
        )


def test_nothing_that_fits_leaves_the_network_itself():
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.ReLU()).eval()
    found = optimise(module, torch.randn(2, 3, 4))
    assert found.model is module
    assert [step.applied for step in found.steps] == [False, False]
    assert "no batch normalisation" in found.steps[0].reason
    assert "no 2-D convolution" in found.steps[1].reason
    assert optimise(module, None, fold_batchnorm=False, channels_last=False).steps == ()


@pytest.mark.parametrize(
    ("kind", "asked", "name", "words"),
    [
        (ReadsItsType, {}, "fold_batchnorm", "changes outputs by 1.0e"),
        (OnlyFloat32, {"dtype": torch.bfloat16}, "dtype", "fails: .*dtype"),
        (Uncopyable, {}, "channels_last", "fails: .*generator"),
        (HuggingFaceLike, {}, "fold_batchnorm", "cannot be traced"),
    ],
)
def test_what_breaks_the_network_is_left_out_with_the_reason(kind, asked, name, words, x):
    module = awake(kind())
    found = optimise(module, x, **asked)
    (step,) = (step for step in found.steps if step.name == name)
    assert not step.applied
    assert step.output_error is None
    with pytest.raises(ValueError, match=words):
        raise ValueError(step.reason)
    assert f"{name}: left out" in str(found)
    expected, _, _ = results(module, x)
    torch.testing.assert_close(results(found.model, x)[0], expected, atol=1e-5, rtol=1e-4)


def test_networks_in_the_form_of_transformers(x):
    found = optimise(awake(HuggingFaceLike()), x, 1, (0.5,), dtype=torch.bfloat16)
    assert [step.applied for step in found.steps] == [False, True, True]
    assert found.model(x, 0.5).dtype == torch.float32


def test_token_ids_are_measured_at_a_layer():
    ids = torch.tensor([[1, 2, 3], [4, 5, 0]])
    found = optimise(Tokens().eval(), ids, layer="embedding", dtype=torch.bfloat16)
    assert found.steps[-1].applied
    assert 0 < found.steps[-1].gradient_error < 0.1
    with pytest.raises(TypeError, match="layer="):
        optimise(Tokens().eval(), ids)


@pytest.mark.parametrize("there", [True, False])
def test_auto_reduces_only_where_the_device_computes_in_it(there, x, monkeypatch):
    monkeypatch.setattr(fast, "has_bfloat16", lambda _: there)
    found = optimise(awake(Plain()), x, dtype="auto")
    assert found.steps[-1].applied is there
    assert ("instructions" in found.steps[-1].reason) is not there
    assert next(found.model.parameters()).dtype == (torch.bfloat16 if there else torch.float32)


@pytest.mark.parametrize(
    ("flags", "there"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": False, "avx512_f": True}, False), ({}, False)],
)
def test_instructions_are_those_that_torch_reports(flags, there, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    assert fast.has_bfloat16(torch.device("cpu")) is there


@pytest.mark.parametrize(("capability", "there"), [((7, 5), False), ((8, 0), True)])
def test_instructions_of_a_gpu(capability, there, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert fast.has_bfloat16(torch.device("cuda")) is there


def test_bad_calls_are_refused(x):
    module = awake(Plain())
    with pytest.raises(ValueError, match=r"dtype: .*bfloat16.*float16"):
        optimise(module, x, dtype=torch.float16)
    with pytest.raises(TypeError, match=r"torch module.*LoadedModel.*module"):
        optimise(mg.load_model("builtin"), x)
    with pytest.raises(ValueError, match="evaluation mode"):
        optimise(awake(Plain()).train(), x)


def test_the_command_line_uses_it_by_default():
    plan = ModelPlan(name="tiny_models:normalised")
    network = Network.load(plan, ComputePlan(device="cpu"))
    assert network.compute.fold_batchnorm
    assert network.compute.channels_last
    assert norms(network.model.module) == 0
    assert network.model.module[0].weight.stride()[1] == 1
    kept = Network.load(plan, ComputePlan(device="cpu", fold_batchnorm=False, channels_last=False))
    assert norms(kept.model.module) == 1
    assert kept.model.module[0].weight.is_contiguous()
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(network.model.module(x), kept.model.module(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_devices_have_the_same_defaults_where_torch_is_right(device, monkeypatch):
    """Only the weights' place is not that of the device named, which is not here."""
    plan, normalised = ModelPlan(name="x"), awake(Plain())
    loaded = mg.models.LoadedModel(module=normalised, preprocess=mg.models.Preprocess())
    monkeypatch.setattr("moreaugrad.runs.network.load_model", lambda *_, **__: loaded)
    monkeypatch.setattr("moreaugrad.runs.network.resolved_device", lambda _: device)
    compute = Network.load(plan, ComputePlan(device=device)).compute
    assert compute.fold_batchnorm
    assert compute.channels_last is (device != "mps")


def test_a_precision_that_cannot_be_had_is_refused_at_the_command_line(monkeypatch):
    loaded = mg.models.LoadedModel(module=Uncopyable().eval(), preprocess=mg.models.Preprocess())
    monkeypatch.setattr("moreaugrad.runs.network.load_model", lambda *_, **__: loaded)
    with pytest.raises(ValueError, match=r"dtype: .*bfloat16.*generator"):
        Network.load(ModelPlan(name="x"), ComputePlan(device="cpu", dtype="bfloat16"))


def test_compiling_that_fails_is_reported_at_once(monkeypatch):
    def broken(_graph, _example):
        raise RuntimeError("no compiler")

    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: plain(function, backend=broken))
    plan = ModelPlan(name="builtin")
    with pytest.warns(UserWarning, match="not compiled.*no compiler"):
        network = Network.load(plan, ComputePlan(device="cpu", compile=True))
    assert network.compute.compile
    assert network.probabilities(network.batch([torch.zeros(3, 64, 64)])).shape == (1, 10)

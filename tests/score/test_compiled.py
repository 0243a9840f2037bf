"""Compiled passes: the same maps, used where nothing looks into a pass, and left if they fail."""

import copy
import warnings

import pytest
import torch
from torch import nn

import moreaugrad as mg
from moreaugrad.models import optimise
from moreaugrad.score import compiled
from moreaugrad.score.checks import ForwardError
from moreaugrad.score.kinks import Replaced


class Passes:
    """A compiler that computes what it is given as it is, and notes the rows of each pass."""

    def __init__(self):
        self.rows = []

    def __call__(self, graph, _):
        def run(*args):
            tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
            self.rows += [len(x) for x in tensors if x.ndim == 4 and x.shape[2] == 9]
            return graph(*args)

        return run


def broken(_graph, _example):
    raise RuntimeError("no compiler\nfor this machine")


@pytest.fixture
def compiler(monkeypatch):
    """Sets the compiler of torch.compile."""
    plain = torch.compile

    def set_compiler(backend):
        def compile_with(function):
            torch._dynamo.reset()
            return plain(function, backend=backend)

        monkeypatch.setattr(torch, "compile", compile_with)
        return backend

    return set_compiler


@pytest.fixture
def module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = (
            nn.Conv2d(3, 6, 3),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        )
        return nn.Sequential(*parts).eval()


@pytest.fixture
def x():
    return torch.randn(3, 3, 9, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network(module, compiler):
    passes = compiler(Passes())
    network = copy.deepcopy(module)
    compiled.compile_passes(network)
    return network, passes


def test_maps_are_those_of_the_network(network, module, x):
    fast, passes = network
    for explainer in (mg.SimpleGradient, mg.SmoothGrad, mg.SparseMoreauGrad, mg.MoreauGrad):
        seen = len(passes.rows)
        found = explainer(fast).explain(x)
        assert len(passes.rows) > seen, explainer
        plain = explainer(module).explain(x)
        assert found.evaluations.tolist() == plain.evaluations.tolist()
        torch.testing.assert_close(found.maps, plain.maps, atol=1e-6, rtol=1e-4)


def test_any_number_of_rows(network, module, x):
    """The first sizes get code of their own, later ones share it."""
    fast, passes = network
    for rows in (3, 1, 2, 5, 4):
        inputs = x.repeat(2, 1, 1, 1)[:rows]
        seen = len(passes.rows)
        found, plain = (
            mg.SimpleGradient(fast).attribute(inputs),
            mg.SimpleGradient(module).attribute(inputs),
        )
        assert passes.rows[seen:] == [rows]
        torch.testing.assert_close(found, plain)


def test_passes_that_are_looked_into_are_not_compiled(network, x):
    fast, passes = network
    seen = []
    with Replaced({torch.nn.functional.silu: lambda *_, **__: seen.append(1) or NotImplemented}):
        mg.SimpleGradient(fast, check=False).attribute(x)
    hook = fast[0].register_forward_hook(lambda *_: seen.append(2))
    mg.SimpleGradient(fast, check=False).attribute(x)
    hook.remove()
    assert 1 in seen
    assert 2 in seen
    mg.SmoothGrad(fast, layer="0", samples=4).attribute(x)
    assert not passes.rows
    mg.SimpleGradient(fast, check=False).attribute(x)
    assert len(passes.rows) == 1


def test_networks_with_kinks_are_recorded_first(x, compiler):
    passes = compiler(Passes())
    kinked = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(294, 4)).eval()
    plain = mg.SmoothGrad(kinked, samples=8).attribute(x)
    compiled.compile_passes(kinked)
    torch.testing.assert_close(mg.SmoothGrad(kinked, samples=8).attribute(x), plain)
    assert not passes.rows
    mg.SmoothGrad(kinked, samples=8, centre=False).attribute(x)
    assert passes.rows


def test_copies_are_not_compiled(network, x):
    fast, passes = network
    mg.SimpleGradient(copy.deepcopy(fast).double()).attribute(x.double())
    assert not passes.rows


def test_what_fails_to_compile_is_computed_as_before(module, x, compiler):
    compiler(broken)
    plain = mg.SmoothGrad(module, samples=8).attribute(x)
    compiled.compile_passes(module)
    with pytest.warns(UserWarning, match="not compiled.*no compiler for this machine"):
        found = mg.SmoothGrad(module, samples=8).attribute(x)
    torch.testing.assert_close(found, plain, atol=0, rtol=0)
    assert "no compiler" in compiled.failure(module)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        mg.SmoothGrad(module, samples=8).attribute(x)


class FailsWithGradients(nn.Flatten):
    def forward(self, x):
        if x.requires_grad:
            raise ValueError("my own")
        return super().forward(x)


def test_errors_of_the_network_are_its_own(x, compiler):
    compiler("eager")
    module = FailsWithGradients().eval()
    compiled.compile_passes(module)
    with pytest.raises(ForwardError, match="my own"):
        mg.SimpleGradient(module, check=False).attribute(x)
    assert compiled.usable(module)


def test_running_out_of_memory_is_no_failure_to_compile(network):
    fast, _ = network

    def work():
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        compiled.with_compiled(fast, work)
    assert compiled.usable(fast)


@pytest.mark.parametrize(
    ("rows", "most", "expected"), [(1, 64, 1), (3, 64, 4), (33, 64, 64), (40, 48, 48), (9, 9, 9)]
)
def test_a_gpu_gets_few_different_sizes(rows, most, expected):
    assert compiled.padded(rows, most, torch.device("cuda")) == expected
    assert compiled.padded(rows, most, torch.device("cpu")) == rows


def test_padding_changes_no_map(network, module, x, monkeypatch):
    fast, passes = network
    monkeypatch.setattr(compiled, "padded", lambda rows, most, _: most)
    found = mg.SmoothGrad(fast, samples=6, batch_size=16).attribute(x)
    assert set(passes.rows) == {16}
    plain = mg.SmoothGrad(module, samples=6, batch_size=16).attribute(x)
    torch.testing.assert_close(found, plain, atol=1e-6, rtol=1e-4)


def step(module, x, **options):
    return optimise(module, x, channels_last=False, compile=True, **options).steps[-1]


@pytest.mark.parametrize(("fast", "slow"), [(1.0, 3.0), (3.0, 1.0), (2.0, 2.0)])
def test_optimise_leaves_it_out_where_it_is_slower(fast, slow, module, x, compiler, monkeypatch):
    passes = compiler(Passes())
    times = iter((fast, slow))
    monkeypatch.setattr("moreaugrad.models.fast._Trial.seconds", lambda _: next(times))
    found = step(module, x)
    assert passes.rows
    assert found.name == "compile"
    assert found.applied is (fast < slow)
    assert found.time == (fast / slow if fast < slow else None)
    assert (f"{fast / slow:.2f} times as long") in str(found)


def test_optimise_says_why_it_is_left_out(module, x, compiler):
    compiler(broken)
    assert "no compiler" in step(module, x).reason
    assert "layer" in step(module, x, layer="0").reason
    assert compiled.usable(module) is False
    assert step(module, None).applied


def test_the_balanced_backward_pass_is_not_compiled(compiler):
    """Compiled code records one operation, which has no rules."""
    compiler("aot_eager")
    net, x = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)).eval(), torch.randn(2, 6)
    expected = mg.SimpleGradient(net, backward="balanced").attribute(x, 1)
    compiled.compile_passes(net)
    exact = mg.SimpleGradient(net).attribute(x, 1)
    torch.testing.assert_close(
        mg.SimpleGradient(net, backward="balanced").attribute(x, 1), expected
    )
    assert not torch.allclose(exact, expected)

"""The two lines in a loop of accelerate: equal to a plain loop, with what accelerate adds."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from moreaugrad.training import Fast
from trained import PENALTY, RATE, by_hand, loader, network, same, signed

accelerate = pytest.importorskip("accelerate")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Settings of an earlier accelerator are kept in the process."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def trained(net: nn.Module, **settings: Any) -> nn.Module:
    accelerator = accelerate.Accelerator(cpu=True, **settings)
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE)
    model, optimiser, batches = accelerator.prepare(net, optimiser, loader(4))
    adversary = Fast(PENALTY)
    torch.manual_seed(0)
    for _ in range(2):
        for x, y in batches:
            model.train()
            with accelerator.accumulate(model):
                x_adv = adversary(model, x, y)
                accelerator.backward(cross_entropy(model(x_adv), y))
                optimiser.step()
                optimiser.zero_grad()
    found: nn.Module = accelerator.unwrap_model(model, keep_torch_compile=False)
    return found


def expected(**given: Any) -> nn.Module:
    torch.manual_seed(0)
    return by_hand(network(), signed, loader(4), **given)


def test_mixed_precision() -> None:
    found = trained(network(), mixed_precision="bf16")
    assert same(found, expected(amp=True))
    assert not same(found, expected(), 1e-5)


def test_accumulated_batches_equal_a_large_one() -> None:
    found = trained(network(plain=True), gradient_accumulation_steps=2)
    assert same(found, by_hand(network(plain=True), signed, loader(8)), 1e-5)


@pytest.mark.parametrize("by", ["torch", "accelerate"])
def test_a_compiled_network(by: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    if by == "torch":
        found = trained(torch.compile(network(), backend="eager"))
    else:
        found = trained(network(), dynamo_backend="eager")
    assert same(found, expected(), 1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "it ran uncompiled"

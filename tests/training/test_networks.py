"""Protocols on networks of other kinds: attention, auxiliary outputs, operators, own errors."""

from collections import namedtuple
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import toys
from moreaugrad import training
from moreaugrad.curvature.second_derivatives import NoSecondDerivative
from moreaugrad.penalties import L1, SquaredL2
from moreaugrad.score.checks import ModelError
from moreaugrad.training import Fast, Penalised
from moreaugrad.training.protocol import Protocol
from toys import normal

Y = torch.tensor([0, 1, 2, 3])
PENALTY = L1(0.01)
CHEAP = {"steps": 2, "replays": 2}
PROTOCOLS = [name for name, row in training.PROTOCOLS.items() if "penalty" in row.needs()]


def cheap(name: str) -> Protocol:
    """The protocol of that name, with few passes."""
    known = training.PROTOCOLS[name].defaults()
    return training.build(name, PENALTY, **{k: v for k, v in CHEAP.items() if k in known})


def trained(protocol: Protocol, model: nn.Module, x: Tensor) -> dict[str, Tensor | None]:
    """The weights' gradients of the last round."""
    for r in protocol.rounds(model, x, Y):
        model.zero_grad()
        r.loss.sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(6, 18), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(x).view(len(x), -1, 3, 2, 3).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head((x + mixed).mean(1))


def test_penalised_training_of_attention() -> None:
    """Fused attention has no second derivative; the plain one has the same values."""
    torch.manual_seed(0)
    model, x = Attention(), normal(4, 5, 6, seed=1).float()
    found = trained(Penalised(SquaredL2(0.5)), model, x)
    with sdpa_kernel(SDPBackend.MATH):
        leaf = x.clone().requires_grad_()
        losses = F.cross_entropy(model(leaf), Y, reduction="none")
        (g,) = torch.autograd.grad(losses.sum(), leaf, create_graph=True)
        total = losses.sum() + SquaredL2(0.5).value(g).sum()
        expected = torch.autograd.grad(total, list(model.parameters()))
    for one, other in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(one, other)


class Once(torch.autograd.Function):
    """x^2, differentiable once."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


def ctc(x: Tensor) -> Tensor:
    """Has a derivative whose derivative torch does not have."""
    paths = x.log_softmax(1)[None].expand(3, -1, -1)
    labels, lengths = torch.ones(len(x), 1, dtype=torch.long), torch.ones(len(x), dtype=torch.long)
    return F.ctc_loss(paths, labels, 3 * lengths, lengths, reduction="none")[:, None] * x


class Then(nn.Module):
    """A network, and what is made of its outputs."""

    def __init__(self, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.last = toys.network((6, 8, 4)), last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x))


@pytest.mark.parametrize("last", [Once.apply, ctc])
def test_an_operator_without_a_second_derivative_is_refused_before_any_step(
    last: Callable[[Tensor], Tensor],
) -> None:
    model = Then(last)
    with pytest.raises(NoSecondDerivative, match="second derivative"):
        trained(Penalised(PENALTY), model, normal(4, 6, seed=1))
    trained(Fast(PENALTY), model, normal(4, 6, seed=1))


def test_hard_sigmoid_has_a_second_derivative_by_an_equal_function() -> None:
    model = nn.Sequential(toys.network((6, 8, 8)), nn.Hardsigmoid(), toys.network((8, 4)))

    def equal(x: Tensor) -> Tensor:
        return model[2](F.relu6(model[0](x) + 3) / 6)

    x = normal(4, 6, seed=1)
    found = trained(Penalised(SquaredL2(0.5)), model, x)
    model.zero_grad()
    (r,) = Penalised(SquaredL2(0.5)).rounds(equal, x, Y)
    r.loss.sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


Outputs = namedtuple("Outputs", ["logits", "aux_logits"])


class Auxiliary(nn.Module):
    """torchvision's Inception and GoogLeNet return such outputs in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.aux = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor | Outputs:
        hidden = torch.tanh(self.body(x))
        if self.training:
            return Outputs(self.head(hidden), self.aux(hidden))
        return self.head(hidden)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_auxiliary_outputs_are_left_out_of_the_loss(protocol: str) -> None:
    model, x = Auxiliary(), normal(4, 6, seed=1).float()
    found = trained(cheap(protocol), model.train(), x)
    expected = trained(cheap(protocol), model.eval(), x)
    assert found.pop("aux.weight") is None
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("error", [AssertionError("size"), KeyError("out"), ZeroDivisionError()])
def test_the_networks_own_error_names_its_input(protocol: str, error: Exception) -> None:
    def broken(x: Tensor) -> Tensor:
        raise error

    with pytest.raises(ModelError, match=type(error).__name__) as caught:
        list(cheap(protocol).rounds(broken, normal(4, 6, seed=1), Y))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("protocol", ["free", "penalised"])
def test_a_network_that_sets_requires_grad_on_its_way_says_so(protocol: str) -> None:
    """As Hugging Face's Wav2Vec2 does in training mode."""

    class Flagged(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            hidden = x[:, :]
            if self.training:
                hidden.requires_grad = True
            return super().forward(hidden)

    model, x = Flagged(6, 4).double().train(), normal(4, 6, seed=1)
    with pytest.raises(ModelError, match="requires_grad"):
        trained(cheap(protocol), model, x)
    trained(Fast(PENALTY), model, x)

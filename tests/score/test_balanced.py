"""The balanced backward pass: its rules against detached copies, and its completeness."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import moreaugrad as mg
from moreaugrad.score.balanced import balanced as rules
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.checks import ModelError
from moreaugrad.score.completeness import completeness_error
from toys import normal

WIDTH, TOKENS, HEADS = 8, 5, 2
ROUNDING = 1e-12


def bound(model: Callable[[Tensor], Tensor], x: Tensor, target: int = 1, **of: str) -> BoundScore:
    return replace(mg.Score(model, **of).bind(x, target), balanced=True)


def balanced(model: Callable[[Tensor], Tensor], x: Tensor, target: int = 1) -> Tensor:
    return bound(model, x, target).grad().reshape(x.shape)


def same(value: Tensor) -> Tensor:
    return value


def split(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def attended(q: Tensor, k: Tensor, v: Tensor, constant: Callable[[Tensor], Tensor]) -> Tensor:
    weights = constant((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1))
    return weights @ v


def by_exp(q: Tensor, k: Tensor, v: Tensor, _: object) -> Tensor:
    odds = torch.exp(q @ k.mT / math.sqrt(q.shape[-1]))
    return (odds / odds.sum(-1, keepdim=True)) @ v


def fused(q: Tensor, k: Tensor, v: Tensor, _: object) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def fused_with_a_mask(q: Tensor, k: Tensor, v: Tensor, _: object) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=q.new_zeros(TOKENS, TOKENS))


def normalised(x: Tensor, norm: nn.LayerNorm, constant: Callable[[Tensor], Tensor]) -> Tensor:
    deviation = constant((x.var(-1, correction=0, keepdim=True) + norm.eps).sqrt())
    return (x - x.mean(-1, keepdim=True)) / deviation * norm.weight + norm.bias


def by_power(x: Tensor, norm: nn.LayerNorm, _: object) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + norm.eps) ** -0.5 * (
        norm.weight
    ) + norm.bias  # fmt: skip


def by_rsqrt(x: Tensor, norm: nn.LayerNorm, _: object) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True).add_(norm.eps))
    return torch.addcmul(norm.bias, centred * scale, norm.weight)


def gated(x: Tensor, constant: Callable[[Tensor], Tensor]) -> Tensor:
    return x * constant(0.5 * (1 + torch.erf(x / math.sqrt(2))))


class Transformer(nn.Module):
    """Two blocks with biases, positions and a class token; its parts can be exchanged for others
    that compute the same, and everything that counts as a constant goes through `constant`."""

    def __init__(self, attention=attended, norm=normalised, activation=gated, constant=same):
        super().__init__()
        self.parts = attention, norm, activation
        self.constant = constant
        self.positions = nn.Parameter(torch.zeros(1, TOKENS, WIDTH))
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(4))
        self.maps = nn.ModuleList(
            nn.Linear(a * WIDTH, b * WIDTH) for _ in range(2) for a, b in ((1, 3), (1, 1), (1, 2),
                                                                           (2, 1))
        )  # fmt: skip
        self.head = nn.Linear(WIDTH, 3)
        self.double().eval()
        with torch.no_grad():
            for seed, weight in enumerate(self.parameters()):
                weight.copy_(normal(*weight.shape, seed=seed) / weight.shape[-1] ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        attention, norm, activation = self.parts
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1) + self.positions
        for at in range(2):
            qkv, out, up, down = self.maps[4 * at : 4 * at + 4]
            q, k, v = map(split, qkv(norm(x, self.norms[2 * at], self.constant)).chunk(3, -1))
            x = x + out(attention(q, k, v, self.constant).transpose(1, 2).flatten(2))
            hidden = up(norm(x, self.norms[2 * at + 1], self.constant))
            x = x + down(activation(hidden, self.constant))
        return self.head(x[:, 0])


WAYS = {
    "by hand": {},
    "exp": {"attention": by_exp},
    "fused": {"attention": fused},
    "fused with a mask": {"attention": fused_with_a_mask},
    "LayerNorm": {"norm": lambda x, norm, _: norm(x)},
    "power": {"norm": by_power},
    "rsqrt": {"norm": by_rsqrt},
    "GELU": {"activation": lambda x, _: F.gelu(x)},
    "all of torch": {
        "attention": fused, "norm": lambda x, norm, _: norm(x), "activation": lambda x, _: F.gelu(x)
    },
}  # fmt: skip


def tokens(batch: int = 3, seed: int = 40) -> Tensor:
    return normal(batch, TOKENS - 1, WIDTH, seed=seed)


@pytest.mark.parametrize("way", WAYS)
def test_it_is_the_gradient_with_detached_constants(way: str) -> None:
    x = tokens()
    literal, net = Transformer(constant=Tensor.detach), Transformer(**WAYS[way])
    torch.testing.assert_close(net(x), literal(x))
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(literal(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(balanced(net, x), expected, rtol=1e-9, atol=1e-11)
    exact = mg.SimpleGradient(net).attribute(x, 1)
    assert float((exact - expected).norm() / expected.norm()) > 0.1


@pytest.mark.parametrize("way", WAYS)
def test_input_times_gradient_and_biases_times_gradient_are_the_score(way: str) -> None:
    net, literal, x = Transformer(**WAYS[way]), Transformer(constant=Tensor.detach), tokens()
    assert float(completeness_error(bound(net, x)).max()) < ROUNDING
    biases = [p for n, p in literal.named_parameters() if n[-4:] == "bias" or "." not in n]
    for row in range(len(x)):
        leaf = x[row : row + 1].clone().requires_grad_()
        score = literal(leaf)[0, 1]
        slopes = torch.autograd.grad(score, [leaf, *biases])
        total = sum((a * b).sum() for a, b in zip([leaf, *biases], slopes, strict=True))
        torch.testing.assert_close(total, score)


def _shifted(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True) + 0.3


PARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": F.relu,
    "leaky ReLU": F.leaky_relu,
    "SiLU": F.silu,
    "SiLU in place": lambda x: F.silu(x + 0.1, inplace=True),
    "ReLU in place": lambda x: F.relu(x + 0.1, inplace=True),
    "GELU by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "GELU by tanh, by hand": lambda x: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * x**3))),
    "Mish": F.mish,
    "Hardswish": F.hardswish,
    "tanh": torch.tanh,
    "squared ReLU": lambda x: F.relu(x) ** 2,
    "SwiGLU": lambda x: F.silu(x[..., :4]) * x[..., 4:],
    "squeeze and excitation": lambda x: x * torch.sigmoid(x.mean(1, keepdim=True)),
    "linear attention": lambda x: x @ (x.mT @ x),
    "sum of squares": lambda x: (x * x).cumsum(-1),
    "GroupNorm": lambda x: F.group_norm(x.mT, 2, torch.arange(8.0).to(x), torch.ones(8).to(x)).mT,
    "LayerNorm without weights": lambda x: F.layer_norm(x, (WIDTH,)),
    "RMSNorm": lambda x: F.rms_norm(x, (WIDTH,), torch.arange(8.0).to(x)),
    "unit length": lambda x: F.normalize(x, dim=-1),
    "deviation": lambda x: _shifted(x) / x.std(-1, keepdim=True),
    "max-pooling": lambda x: F.max_pool1d(x, 2),
    "max-pooling of images": lambda x: F.max_pool2d(x[:, None], 3, 1, 1)[:, 0],
    "largest": lambda x: x.amax(1),
    "largest of an axis": lambda x: x.max(1).values,
    "multi-head attention": nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double().eval(),
}  # fmt: skip


class Around(nn.Module):
    """Linear, a part, linear, with biases; the part also has a shortcut around it."""

    def __init__(self, part: Callable[..., Tensor]) -> None:
        super().__init__()
        self.part = part
        self.first = nn.Linear(WIDTH, WIDTH).double()
        self.head = nn.LazyLinear(3).double()
        self(tokens())
        with torch.no_grad():
            for seed, weight in enumerate(self.parameters()):
                weight.copy_(normal(*weight.shape, seed=60 + seed) / weight.shape[-1] ** 0.5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        if isinstance(self.part, nn.MultiheadAttention):
            found = self.part(hidden, hidden, hidden, need_weights=False)[0]
        else:
            found = self.part(hidden)
        return self.head(torch.cat((found.flatten(1), x.flatten(1)), 1))


@pytest.mark.parametrize("part", PARTS)
def test_each_rule_is_complete(part: str) -> None:
    net, x = Around(PARTS[part]), tokens()
    score = bound(net, x)
    assert float(completeness_error(score).max()) < ROUNDING
    assert torch.equal(score.value_and_grad()[0], mg.Score(net).bind(x, 1).value_and_grad()[0])
    alone = torch.cat([balanced(net, x[row : row + 1]) for row in range(len(x))])
    torch.testing.assert_close(balanced(net, x), alone)


@pytest.mark.parametrize(
    ("part", "without_a_rule"), [(F.softplus, True), (torch.sin, True), (F.relu, False)]
)
def test_a_part_without_a_rule_is_reported(part: Callable[..., Tensor], without_a_rule: bool):
    explainer = mg.SimpleGradient(Around(part), backward="balanced")
    found = explainer.explain(tokens(), 1)
    assert (found.status[1].value == "incomplete") == without_a_rule
    assert bool(found.details["completeness_error"][1] > 0.01) == without_a_rule
    assert found.ok != without_a_rule


class OfPatches(nn.Module):
    """Tokens of patches, which lie in memory by feature, through torch's own encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.places = nn.Parameter(normal(16, 8, seed=3))
        layer = nn.TransformerEncoderLayer(
            8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 5)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.encoder(tokens).mean(1))


def test_it_is_complete_whatever_the_layout_of_memory() -> None:
    found = completeness_error(bound(OfPatches(), normal(3, 3, 8, 8, seed=4)))
    assert float(found.max()) < ROUNDING


def test_a_network_that_computes_otherwise_at_zero_is_not_known_to_be_complete() -> None:
    net = Around(F.relu)
    other = lambda x: net(x) if bool(x.any()) else net(x).sigmoid()  # noqa: E731
    found = mg.SimpleGradient(other, backward="balanced", check=False).explain(tokens(), 1)
    assert found.details["completeness_error"].isnan().all()
    assert found.status[0].value == "incomplete"


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Sigmoid()])
def test_an_output_that_is_a_constant_is_refused(end: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"backward: expected a network .* logits"):
        balanced(nn.Sequential(Around(F.relu), end), tokens())


@pytest.mark.parametrize("score", ["margin", "log-probability", "probability", "against:0"])
def test_other_scores_weigh_complete_outputs(score: str) -> None:
    assert float(completeness_error(bound(Transformer(), tokens(), kind=score)).max()) < ROUNDING


def test_layers_masks_and_functions() -> None:
    net, x = Transformer(attention=fused), tokens()
    inner = replace(mg.Score(net, layer="maps.0").bind(x, 1), balanced=True)
    assert float(completeness_error(inner).max()) < ROUNDING
    mask = torch.ones(3, TOKENS - 1, dtype=torch.bool)
    mask[:, -1] = False
    padded = replace(mg.Score(net).bind(x, 1, mask=mask), balanced=True)
    assert float(completeness_error(padded).max()) < ROUNDING
    assert not padded.grad().reshape(x.shape)[:, -1].any()
    total = replace(mg.Score(net).bind(x, lambda out: out.sum(1)), balanced=True)
    assert float(completeness_error(total).max()) < ROUNDING


class Again(nn.Module):
    """A network that computes its activations again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Around(F.gelu)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.net, x, use_reentrant=False)


def test_activations_that_are_computed_again_are_refused() -> None:
    assert mg.SimpleGradient(Again()).attribute(tokens(), 1).any()
    with pytest.raises(ModelError, match=r"backward: .*checkpoint"):
        balanced(Again(), tokens())


def test_the_graph_of_others_keeps_its_gradients() -> None:
    net, outside = Around(F.gelu), normal(3, 1, WIDTH, seed=9).requires_grad_()
    shared = F.gelu(outside)
    with_argument = lambda x, shift: net(x + shift)  # noqa: E731
    score = replace(mg.Score(with_argument).bind(tokens(), 1, shared), balanced=True)
    before = torch.autograd.grad(shared.sum(), outside, retain_graph=True)[0]
    assert float(completeness_error(score).max()) < ROUNDING
    assert torch.equal(torch.autograd.grad(shared.sum(), outside)[0], before)


def test_half_precision() -> None:
    net, x = Transformer(**WAYS["all of torch"]).float(), tokens().float()
    explainer = mg.SimpleGradient(net, backward="balanced")
    exact = explainer.explain(x, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = explainer.explain(x, 1)
    assert found.ok
    assert exact.ok
    assert float(exact.details["completeness_error"].max()) < 1e-5
    assert 1e-5 < float(found.details["completeness_error"].max()) < 0.1
    assert float((found.maps - exact.maps).norm() / exact.maps.norm()) < 0.05


def test_the_same_graph_has_its_own_gradient_afterwards() -> None:
    leaf = tokens().requires_grad_()
    output = Around(F.gelu)(leaf)[:, 1].sum()
    (exact,) = torch.autograd.grad(output, leaf, retain_graph=True)
    with rules(output, [leaf]):
        (other,) = torch.autograd.grad(output, leaf, retain_graph=True)
    (again,) = torch.autograd.grad(output, leaf)
    assert torch.equal(again, exact)
    assert not torch.allclose(other, exact)

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import oracles
import toys
from moreaugrad import RelEx, SimpleGradient, SmoothGrad, SparseMoreauGrad, load_model
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.noise import ABSOLUTE, RELATIVE, Noise
from moreaugrad.score.score import Score
from moreaugrad.score.targets import KINDS

F64 = torch.float64


def literal_mean(score: BoundScore, u: Tensor, draws: range) -> tuple[Tensor, Tensor]:
    """Mean value and gradient over draws, a sample and a draw at a time."""
    assert score.sigma is not None
    values, gradients = [], []
    for i in range(len(score)):
        alone = score.select(torch.tensor([i]))
        found = []
        for draw in draws:
            z = score.noise.draw([score.keys[i]], draw, score.origin)
            point = score.origin[i : i + 1] + u[i : i + 1] + score.sigma[i : i + 1] * z
            plain = Score(alone.model, kind=score.readout.kind, task=score.readout.task)
            bound = plain.bind(score.layout.restore(point), alone.target.classes, alone.args)
            found.append((bound.clean, bound.value_and_grad()[1]))
        values.append(torch.stack([v for v, _ in found]).mean(0))
        gradients.append(torch.stack([g for _, g in found]).mean(0))
    return torch.cat(values), torch.cat(gradients)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("task", "columns"), [("multiclass", 3), ("multilabel", 3), ("binary", 1)])
def test_gradients_match_differences(kind: str, task: str, columns: int) -> None:
    model, x = toys.network((5, 8, columns)), toys.normal(3, 5, seed=1)
    u = toys.normal(3, 5, seed=2)
    score = Score(model, kind=kind, task=task).bind(x, [0, 1, 0] if columns == 1 else [2, 0, 1])
    value, gradient = score.value_and_grad(u)
    for i in range(3):
        alone = score.select(torch.tensor([i]))

        def at(moved: Tensor, alone: BoundScore = alone) -> Tensor:
            return alone.value_and_grad(moved[None])[0][0]

        assert at(u[i]) == pytest.approx(float(value[i]), abs=1e-12)
        expected = oracles.central_differences(at, u[i], 1e-6)
        torch.testing.assert_close(gradient[i], expected, rtol=1e-7, atol=1e-8)


def test_the_clean_score_target_and_prediction() -> None:
    model, x = toys.network((5, 8, 3)), toys.normal(4, 5, seed=1)
    outputs = model(x)
    score = Score(model, kind="probability").bind(x)
    assert torch.equal(score.target.classes, outputs.argmax(1))
    torch.testing.assert_close(score.clean, outputs.softmax(1).amax(1))
    other = Score(model, kind="probability").bind(x, 1)
    assert torch.equal(other.prediction, outputs.argmax(1))
    torch.testing.assert_close(other.clean, outputs.softmax(1)[:, 1])


def test_the_target_stays_while_the_input_moves() -> None:
    """The prediction changes along the way; the class explained does not."""
    score = Score(lambda x: torch.stack([x[:, 0], -x[:, 0]], 1)).bind(torch.tensor([[1.0]]))
    value, gradient = score.value_and_grad(torch.tensor([[-5.0]]))
    assert (value.item(), gradient.item()) == (-4.0, 1.0)


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("keys", [None, [4, 0, 9]])
def test_a_smoothed_score_is_the_mean_over_its_draws(
    antithetic: bool, keys: list[int] | None
) -> None:
    model, x = toys.network((5, 8, 3)), toys.normal(3, 5, seed=1)
    noise = Noise(3, antithetic=antithetic)
    score = Score(model, sigma=0.3, samples=7, noise=noise).bind(x, None, ids=keys)
    u = toys.normal(3, 5, seed=2)
    for draws in (range(7), range(11, 14)):
        value, gradient = score.value_and_grad(u, draws)
        expected = literal_mean(score, u, draws)
        torch.testing.assert_close(value, expected[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient, expected[1], rtol=1e-12, atol=1e-12)
    assert torch.equal(score.value_and_grad(u)[1], score.value_and_grad(u, range(7))[1])


def test_noise_levels_of_a_smoothed_score() -> None:
    x = torch.tensor([[0.0, 4.0], [1.0, 1.5]])
    model = nn.Linear(2, 3).eval()
    relative = Score(model, sigma=0.5, sigma_mode=RELATIVE).bind(x)
    assert relative.sigma is not None
    assert relative.sigma.tolist() == [[2.0], [0.25]]
    absolute = Score(model, sigma=0.5, sigma_mode=ABSOLUTE).bind(x)
    assert absolute.sigma is not None
    assert absolute.sigma.tolist() == [[0.5], [0.5]]
    none = Score(model, sigma=0.0).bind(x)
    assert none.sigma is None
    assert none.passes == 1
    assert relative.passes == 64


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 8, 1000])
@pytest.mark.parametrize("keys", [None, [4, 0, 9]])
def test_results_do_not_depend_on_the_chunks(chunk: int, keys: list[int] | None) -> None:
    x, u = toys.normal(3, 5, seed=1), toys.normal(3, 5, seed=2)

    def of(size: int) -> tuple[Tensor, Tensor]:
        score = Score(toys.network((5, 8, 3)), batch_size=size, sigma=0.3, samples=6)
        bound = score.bind(x, None, ids=keys)
        return bound.value_and_grad(u, range(2, 7))

    expected = of(15)
    for found, wanted in zip(of(chunk), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("rows", [[2], [1, 0], [0, 2, 1], [1, 1]])
def test_selected_rows_keep_their_scores(rows: list[int]) -> None:
    """Inputs, targets, noise, keys and arguments follow their sample."""
    x, scale = toys.normal(3, 5, seed=1), torch.tensor([1.0, 2.0, -3.0], dtype=F64)
    net = toys.network((5, 8, 3))
    score = Score(lambda x, s: net(x) * s[:, None], sigma=0.3, samples=4).bind(
        x, [2, 0, 1], scale, ids=[5, 6, 7]
    )
    u = toys.normal(3, 5, seed=2)
    value, gradient = score.value_and_grad(u)
    at = torch.tensor(rows)
    picked = score.select(at)
    found = picked.value_and_grad(u[at])
    torch.testing.assert_close(found[0], value[at], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found[1], gradient[at], rtol=1e-13, atol=1e-13)
    assert torch.equal(picked.clean, score.clean[at])
    assert torch.equal(picked.prediction, score.prediction[at])
    assert picked.keys == tuple(score.keys[row] for row in rows)


def test_an_argument_without_samples_stays_whole_when_the_batch_shrinks() -> None:
    """Its length may happen to be that of what is left of the batch."""
    shared = torch.tensor([2.0, 10.0], dtype=F64)
    score = Score(lambda x, w: x * w[0] + w[1], batch_size=2).bind(
        torch.ones(3, 4, dtype=F64), 1, shared
    )
    for rows in ([0, 1], [2, 0], [1]):
        value, gradient = score.select(torch.tensor(rows)).value_and_grad()
        assert value.tolist() == [12.0] * len(rows)
        assert gradient.tolist() == [[0.0, 2.0, 0.0, 0.0]] * len(rows)


def test_arguments_that_are_no_tensors_are_passed_on() -> None:
    def model(x: Tensor, factor: float, name: str, nothing: None, flag: Tensor) -> Tensor:
        assert (name, nothing, flag.ndim) == ("cat", None, 0)
        return x * factor

    score = Score(model).bind(torch.ones(2, 3), 0, (2.5, "cat", None, torch.tensor(True)))
    assert score.value_and_grad()[1].tolist() == [[2.5, 0.0, 0.0]] * 2


class TwoInputs(nn.Module):
    def forward(self, image: Tensor, features: Tensor, scale: Tensor) -> Tensor:
        total = (image**2).flatten(1).sum(1) * features[:, 0] + features[:, 1]
        return torch.stack([total, -total], 1) * scale[:, None]


def test_several_inputs_are_one_vector() -> None:
    image, features = toys.normal(2, 1, 2, 2, seed=1), toys.normal(2, 2, seed=2)
    scale = torch.tensor([1.0, 3.0], dtype=F64)
    score = Score(TwoInputs().eval()).bind((image, features), 0, scale)
    assert score.layout.shapes == ((1, 2, 2), (2,))
    _, gradient = score.value_and_grad()
    parts = score.layout.split(gradient)
    by = scale[:, None] * features[:, :1]
    torch.testing.assert_close(parts[0].flatten(1), 2 * by * image.flatten(1))
    squares = scale * (image**2).flatten(1).sum(1)
    torch.testing.assert_close(parts[1], torch.stack([squares, scale], 1))


def test_inputs_of_two_precisions_keep_theirs() -> None:
    seen = []

    def model(one: Tensor, two: Tensor) -> Tensor:
        seen.append((one.dtype, two.dtype))
        return one.sum(1, keepdim=True).double() + two.sum(1, keepdim=True)

    score = Score(model, task="regression").bind((torch.ones(2, 3), torch.ones(2, 2, dtype=F64)))
    assert score.origin.dtype == F64
    assert score.value_and_grad()[1].dtype == F64
    assert set(seen) == {(torch.float32, F64)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_for_network_passes_only(dtype: torch.dtype) -> None:
    model = nn.Linear(4, 2).eval().to(dtype)
    score = Score(model, sigma=0.1, samples=4).bind(torch.ones(2, 4, dtype=dtype))
    value, gradient = score.value_and_grad()
    assert (score.origin.dtype, value.dtype, gradient.dtype) == (torch.float32,) * 3
    assert score.layout.restore(gradient)[0].dtype == dtype


def test_an_unused_input_has_a_zero_gradient() -> None:
    score = Score(lambda one, two: one).bind((torch.ones(2, 3), torch.ones(2, 2)), 1)
    assert score.value_and_grad()[1].tolist() == [[0.0, 1.0, 0.0, 0.0, 0.0]] * 2


# The input taken at a layer.


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 4)
        self.position = nn.Parameter(torch.randn(6, 4))
        self.body = toys.network((4, 8, 3), dtype=torch.float32)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = (self.embedding(ids) + self.position) * mask[..., None]
        return self.body(hidden.mean(1))


IDS = torch.tensor([[1, 2, 3, 4, 5, 6], [7, 7, 7, 8, 8, 0]])
MASK = torch.tensor([[1.0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("chunk", [None, 1])
def test_the_input_can_be_taken_at_a_layer(by_name: bool, chunk: int | None) -> None:
    model = Words().eval()
    layer = "embedding" if by_name else model.embedding
    score = Score(model, layer=layer, batch_size=chunk).bind(IDS, None, MASK)
    embedded = model.embedding(IDS).detach()
    assert score.layout.shapes == ((6, 4),)
    torch.testing.assert_close(score.origin.reshape(2, 6, 4), embedded)
    moved = embedded + torch.randn(2, 6, 4)
    point = moved.clone().requires_grad_()
    outputs = model.body(((point + model.position) * MASK[..., None]).mean(1))
    chosen = outputs.gather(1, score.target.classes[:, None])[:, 0]
    (expected,) = torch.autograd.grad(chosen.sum(), point)
    value, gradient = score.value_and_grad((moved - embedded).flatten(1))
    torch.testing.assert_close(value, chosen.detach())
    torch.testing.assert_close(gradient.reshape(2, 6, 4), expected)


def test_a_layer_is_smoothed_at_its_own_output() -> None:
    model = Words().eval()
    score = Score(model, layer="embedding", sigma=0.2, samples=6).bind(IDS, 0, MASK)
    u = torch.zeros_like(score.origin)
    value, gradient = score.value_and_grad(u)
    noisy = []
    for draw in range(6):
        assert score.sigma is not None
        points = score.origin + score.sigma * score.noise.draw(score.keys, draw, score.origin)
        noisy.append(
            Score(model, layer="embedding").bind(IDS, 0, MASK).value_and_grad(points - score.origin)
        )
    torch.testing.assert_close(value, torch.stack([v for v, _ in noisy]).mean(0))
    torch.testing.assert_close(gradient, torch.stack([g for _, g in noisy]).mean(0))


def test_what_cannot_be_called_is_refused_and_where_the_network_is() -> None:
    for make in (SimpleGradient, SparseMoreauGrad):
        with pytest.raises(TypeError, match=r"LoadedModel.*\.module"):
            make(load_model("builtin"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"torch module.* got str"):
        Score("resnet50")  # type: ignore[arg-type]


def test_layers_that_do_not_fit_are_reported() -> None:
    model = Words().eval()

    def binding(layer: object) -> None:
        Score(model, layer=layer).bind(IDS, None, MASK)

    with pytest.raises(ValueError, match=r"no module 'embeding'; did you mean 'embedding'\?"):
        binding("embeding")
    with pytest.raises(ValueError, match="expected a module of the model, got Linear"):
        binding(nn.Linear(1, 1))
    with pytest.raises(TypeError, match="expected the model to be a torch module, got function"):
        Score(lambda x: x, layer="0").bind(torch.ones(1, 2))
    twice = nn.Sequential(shared := nn.Linear(2, 2), nn.Tanh(), shared).eval()
    with pytest.raises(ValueError, match="runs once in a forward pass, it ran 2 times"):
        Score(twice, layer=shared).bind(torch.ones(1, 2))
    with pytest.raises(TypeError, match="one floating-point tensor, got tuple"):
        Score(nn.Sequential(nn.GRU(2, 2), nn.Identity()), layer="0").bind(torch.ones(1, 2))


class Shared(nn.Module):
    """Embeds positions once for the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Embedding(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.position(torch.arange(5))


def test_a_layer_without_samples_is_reported() -> None:
    with pytest.raises(ValueError, match=r"output has 2 rows, one a sample, got shape \(5, 3\)"):
        Score(Shared().eval(), layer="position").bind(torch.ones(2, 5, 3), (0, 0))


# What a call leaves behind.


def test_a_call_leaves_the_model_and_the_inputs_as_found(untouched_generators) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 3)).eval()
    model[0].weight.requires_grad_(False)
    model[3].weight.grad = torch.full((3, 5), 7.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(2, 4, requires_grad=True)
    clean = x.detach().clone()
    with untouched_generators():
        for layer in (None, "0"):
            Score(model, layer=layer, sigma=0.1, samples=4).bind(x).value_and_grad()
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert torch.equal(model[3].weight.grad, torch.full((3, 5), 7.0))
    assert [p.grad is None for p in model.parameters()] == [True] * 4 + [False, True]
    assert not any(module._forward_hooks for module in model.modules())
    assert x.grad is None
    assert torch.equal(x.detach(), clean)


def test_hooks_are_removed_when_a_pass_fails() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.calls = nn.Linear(2, 2), 0

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x)
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("broken")
            return hidden

    model = Failing().eval()
    with pytest.raises(ValueError, match="broken"):
        Score(model, layer="first").bind(torch.ones(1, 2))
    assert not model.first._forward_hooks


def test_gradients_are_found_under_no_grad() -> None:
    model, x = toys.network((5, 8, 3)), toys.normal(2, 5, seed=1)
    expected = Score(model).bind(x).value_and_grad()[1]
    with torch.no_grad():
        assert torch.equal(Score(model).bind(x).value_and_grad()[1], expected)
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_without_coupling_is_fine(training: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.0), nn.LayerNorm(3)).train(training)
    Score(model).bind(torch.ones(1, 2)).value_and_grad()
    assert model.training is training


# Memory.


class Small(nn.Module):
    """Runs out of memory above `most` samples at a time."""

    def __init__(self, most: int, error: type[Exception] = RuntimeError) -> None:
        super().__init__()
        self.net, self.most, self.error = toys.network((5, 8, 3)), most, error
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.sizes.append(len(x))
        return self.net(x)


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError, MemoryError])
@pytest.mark.parametrize("layer", [None, "net.0"])
def test_the_chunk_is_halved_when_memory_runs_out(
    error: type[Exception], layer: str | None
) -> None:
    x, model = toys.normal(3, 5, seed=1), Small(2, error).eval()

    def of(model: nn.Module) -> tuple[Tensor, Tensor]:
        return Score(model, layer=layer, sigma=0.3, samples=5).bind(x).value_and_grad()

    found, expected = of(model), of(Small(10**6).eval())
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-13, atol=1e-13)
    assert max(model.sizes) == 2  # as many at once as fit


def test_one_sample_that_does_not_fit_is_reported() -> None:
    with pytest.raises(MemoryError, match="not enough memory for the pass of one sample"):
        Score(Small(0).eval()).bind(torch.ones(3, 5, dtype=F64))


# Bad input.


def bind(model: Callable[..., object], x: object = None, **settings: object) -> None:
    bound = Score(model, **settings).bind(torch.ones(2, 3) if x is None else x)
    bound.value_and_grad()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([1.0], TypeError, "expected a tensor or a tuple of tensors, got list"),
        ((), ValueError, "got an empty tuple"),
        ((torch.ones(1, 2), 3), TypeError, "got int"),
        (torch.ones(3), ValueError, r"got shape \(3,\) \(add the batch dimension"),
        (torch.ones(0, 3), ValueError, r"at least one sample and one entry, got shape \(0, 3\)"),
        (torch.ones(2, 0), ValueError, "at least one sample and one entry"),
        ((torch.ones(2, 3), torch.ones(3, 3)), ValueError, r"same number of samples .* \[2, 3\]"),
        (
            torch.ones(2, 3, dtype=torch.long),
            TypeError,
            r"got torch.int64; convert with .float\(\)",
        ),
        (torch.ones(2, 3, dtype=torch.bool), TypeError, r"got torch.bool"),
        (torch.tensor([[1.0], [math.nan], [0.0], [math.inf]]), ValueError, r"sample\(s\) \[1, 3\]"),
    ],
)
def test_bad_inputs_are_reported(x: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bind(lambda x: x, x)


def test_a_models_own_error_says_what_it_was_given() -> None:
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval()
    with pytest.raises(ValueError, match=r"inputs of shape \(B, 1, 8, 8\) and dtype torch.float32"):
        bind(convolution, torch.ones(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"shape \(B, 3\) and dtype torch.float64"):
        bind(nn.Linear(3, 2).eval(), torch.ones(2, 3, dtype=F64))


@dataclass
class Output:
    logits: Tensor


def test_outputs_that_carry_logits() -> None:
    linear = nn.Linear(3, 2).eval()
    plain = Score(linear).bind(torch.ones(1, 3)).value_and_grad()
    found = Score(lambda x: Output(linear(x))).bind(torch.ones(1, 3)).value_and_grad()
    assert torch.equal(found[1], plain[1])


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda x: x.detach() * 2, ValueError, "the score does not depend on the input"),
        (lambda x: torch.tensor(x.tolist()), ValueError, "the score does not depend on the input"),
        (lambda x: torch.ones(len(x), 2, requires_grad=True) * 2, ValueError, "does not depend"),
        (lambda x: x.mul_(2), ValueError, "changes its input in place, so"),
        (lambda x: x.sum(), ValueError, r"2 rows, one a sample, got shape \(\): .* reduce"),
        (lambda x: x.sum(0, keepdim=True), ValueError, r"2 rows, one a sample, got shape \(1, 3\)"),
        (lambda x: (x, x), TypeError, "got tuple of 2.* wrap the model so that it returns"),
        (lambda x: x.long(), TypeError, r"floating-point outputs, got torch.int64"),
        (
            lambda x: x / 0,
            ValueError,
            r"the model's outputs: .* NaN or Inf in sample\(s\) \[0, 1\]",
        ),
    ],
)
def test_models_that_cannot_be_explained_are_reported(
    model: Callable[[Tensor], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as found:
        bind(model)
    assert not found.type.__name__.startswith("_")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.BatchNorm1d(3), r"1 \(BatchNorm1d\) is in training mode, where samples of a batch"),
        (nn.Dropout(0.1), r"1 \(Dropout\) is in training mode, where outputs are random"),
    ],
)
def test_training_mode_is_reported(module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message + r".* call model.eval\(\)"):
        bind(nn.Sequential(nn.Linear(3, 3), module).train())


def test_batch_statistics_in_evaluation_mode_are_reported() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval()
    with pytest.raises(ValueError, match=r"1 \(BatchNorm1d\) keeps no running statistics"):
        bind(model)


def test_inference_mode_is_reported() -> None:
    with torch.inference_mode():
        x = torch.ones(2, 3)
        with pytest.raises(ValueError, match=r"outside torch.inference_mode\(\)"):
            bind(nn.Linear(3, 2).eval(), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"x.clone\(\) made outside"):
        bind(nn.Linear(3, 2).eval(), x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "logits"}, r"did you mean 'logit'\?"),
        ({"task": "binarry"}, r"did you mean 'binary'\?"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
    ],
)
def test_bad_settings_are_reported(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bind(nn.Linear(3, 2).eval(), **settings)
    with pytest.raises(ValueError, match="samples: expected at least 1, got 0"):
        Score(nn.Linear(3, 2), sigma=0.1, samples=0)


@pytest.mark.parametrize("method", [SmoothGrad, SparseMoreauGrad, RelEx])
@pytest.mark.parametrize("given", [{"sigma": -1.0}, {"sigma": math.nan}, {"sigma_mode": "pixels"}])
def test_settings_of_noise_are_refused_before_there_is_an_input(
    method: Callable[..., object], given: dict[str, float | str]
) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        method(nn.Linear(3, 2), **given)

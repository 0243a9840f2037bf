"""Grad-CAM against the paper's formula, whichever layer and whatever the order of its axes."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import toys
from moreaugrad import GradCAM, Status

F64 = torch.float64
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def drawn(model: nn.Module, seed: int = 0) -> Any:
    """In float64, with the same weights whenever it is built."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.double().parameters():
        weight = torch.randn(parameter.shape, generator=generator, dtype=F64)
        parameter.data = weight / max(1, parameter[0].numel()) ** 0.5
    return model.eval()


def images(*shape: int, seed: int = 1) -> Tensor:
    return toys.normal(*shape, seed=seed)


def read(
    model: Callable[[Tensor], Tensor], layer: nn.Module, x: Tensor, target: int
) -> tuple[Tensor, Tensor]:
    """A layer's output, and the gradient of the targets by it."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()  # what follows may work in place

    handle = layer.register_forward_hook(keep)
    outputs = model(x.clone().requires_grad_())
    handle.remove()
    (gradient,) = torch.autograd.grad(outputs[:, target].sum(), kept[0])
    return kept[0].detach(), gradient


def cam(activations: Tensor, gradient: Tensor, size: tuple[int, ...]) -> Tensor:
    """The paper's formula of `[B, K, *positions]`, enlarged to positions of this size."""
    weights = gradient.flatten(2).mean(2)
    small = torch.einsum("bk,bk...->b...", weights, activations)[:, None]
    return F.interpolate(small, size, mode=MODES[len(size)])[:, 0]


# The formula


def test_the_layer_is_found_once_in_a_call() -> None:
    model, x, calls, seen = drawn(Pyramid()), images(9, 2, 9, 8), [], []
    model.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    explainer = GradCAM(model, batch_size=1, check=False)
    explainer.explain(x[:1], 1)
    alone = len(calls)
    explainer.explain(x, 1, progress=lambda done, _: seen.append(done))
    assert len(calls) == 2 * alone + 8 * 2  # 8 more scores and maps
    assert seen[:9] == list(range(1, 10))


class Pyramid(nn.Module):
    """Its last convolution stands first; the one that runs last sees a single position."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(4, 3, 3)
        self.first = nn.Conv2d(2, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.gate = nn.Conv2d(3, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu(self.last(self.relu(self.first(x))))
        return self.gate(hidden.mean((2, 3), keepdim=True))[:, :, 0, 0]


def test_the_papers_formula() -> None:
    model, x = drawn(Pyramid()), images(3, 2, 9, 8)
    for name, layer in ((None, model.last), ("first", model.first), (model.last, model.last)):
        expected = cam(*read(model, layer, x, 3), (9, 8))[:, None].expand_as(x)
        result = GradCAM(model, cam_layer=name).explain(x, 3)
        torch.testing.assert_close(result.maps, expected)
        assert result.settings["cam_layer"] == ("first" if name == "first" else "last")
        assert set(result.status) == {Status.DIRECT}
        assert result.evaluations.tolist() == [1, 1, 1]
        assert result.error.isnan().all()
        for i in range(3):
            alone = GradCAM(model, cam_layer=name).explain(x[i : i + 1], 3)
            torch.testing.assert_close(alone.maps, result.maps[i : i + 1])
        activations, gradient = read(model, layer, x, 3)
        small = torch.einsum("bk,bkhw->bhw", gradient.mean((2, 3)), activations).clamp(min=0)
        large = F.interpolate(small[:, None], (9, 8), mode="bilinear").expand_as(x)
        rectified = GradCAM(model, cam_layer=name, relu=True).attribute(x, target=3)
        torch.testing.assert_close(rectified, large)


@pytest.mark.parametrize(
    ("shape", "conv"), [((3, 12), nn.Conv1d), ((3, 9, 8), nn.Conv2d), ((3, 5, 6, 7), nn.Conv3d)]
)
def test_signals_and_volumes(shape: tuple[int, ...], conv: Any) -> None:
    body = nn.Sequential(conv(3, 4, 3), nn.Tanh(), nn.Flatten())
    x = images(2, *shape)
    model = drawn(nn.Sequential(*body, nn.Linear(body(x.float()).shape[1], 3)))
    for name, layer in ((None, model[1]), ("0", model[0])):
        expected = cam(*read(model, layer, x, 1), shape[1:])[:, None].expand_as(x)
        torch.testing.assert_close(GradCAM(model, cam_layer=name).attribute(x, target=1), expected)


def test_a_signal_without_channels() -> None:
    model = drawn(
        nn.Sequential(nn.Unflatten(1, (1, 12)), nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(40, 3))
    )
    x = images(2, 12)
    expected = cam(*read(model, model[1], x, 1), (12,))
    torch.testing.assert_close(GradCAM(model).attribute(x, target=1), expected)


# Axes


class Turned(nn.Module):
    """`body` on the input with its axes in another order, and its output in yet another."""

    def __init__(self, body: nn.Module, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        super().__init__()
        self.body, self.before, self.after = body, before, after
        self.same, self.head = nn.Identity(), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.same(self.body(x.permute(self.before)).permute(self.after))
        back = hidden.permute(sorted(range(hidden.ndim), key=self.after.__getitem__))
        return self.head(torch.tanh(back).flatten(2).mean(2))


class Fixed(nn.Module):
    """Takes inputs of one size only: it adds a table of positions."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(1, *shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


ORDERS: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "series [B, T, C]": (nn.Conv1d, (20, 6), (0, 2, 1), (0, 1, 2)),
    "series, channels last": (nn.Conv1d, (6, 20), (0, 1, 2), (0, 2, 1)),
    "images [B, H, W, C]": (nn.Conv2d, (10, 12, 3), (0, 3, 1, 2), (0, 2, 3, 1)),
    "square, exchanged": (nn.Conv2d, (3, 9, 9), (0, 1, 3, 2), (0, 1, 2, 3)),
    "square, exchanged, channels last": (nn.Conv2d, (3, 9, 9), (0, 1, 3, 2), (0, 2, 3, 1)),
    "exchanged there and back": (nn.Conv2d, (3, 9, 9), (0, 1, 3, 2), (0, 1, 3, 2)),
    "all of one size": (nn.Conv2d, (8, 8, 8), (0, 2, 3, 1), (0, 3, 1, 2)),
    "video [B, T, C, H, W]": (nn.Conv3d, (4, 3, 8, 8), (0, 2, 1, 3, 4), (0, 2, 3, 4, 1)),
    "one column": (nn.Conv2d, (3, 30, 1), (0, 1, 2, 3), (0, 1, 2, 3)),
}


@pytest.mark.parametrize("fixed", [False, True], ids=["any size", "one size"])
@pytest.mark.parametrize("order", ORDERS)
def test_any_order_of_the_axes(order: str, fixed: bool) -> None:
    conv, shape, before, after = ORDERS[order]
    inside = tuple(shape[axis - 1] for axis in before[1:])
    body: nn.Module = conv(inside[0], 8, 3, padding=1)
    if fixed:
        body = nn.Sequential(Fixed(*inside), body)
    model, x = drawn(Turned(body, before, after)), images(2, *shape)
    turned = cam(*read(model, model.body, x, 1), inside[1:])[:, None].expand(-1, *inside)
    expected = turned.permute(sorted(range(x.ndim), key=before.__getitem__))
    for layer in ("same", "body"):
        found = GradCAM(model, cam_layer=layer).attribute(x, target=1)
        torch.testing.assert_close(found, expected)


class Tokens(nn.Module):
    """A patch embedding, more tokens before or after those of the patches, and a class token's
    attention to them, over and over."""

    def __init__(
        self, before: int, after: int, columns_first: bool, size: tuple[int, int], fixed: bool
    ) -> None:
        super().__init__()
        rows, columns = size[0] // 4, size[1] // 4
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.before, self.after = (
            nn.Parameter(torch.empty(1, n, 8)) if n else None for n in (before, after)
        )
        self.columns_first = columns_first
        count = rows * columns + before + after
        self.places = Fixed(count, 8) if fixed else nn.Identity()
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True) for _ in range(3)
        )
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)
        self.extra = before, after

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x)
        if self.columns_first:
            patches = patches.mT
        tokens = patches.flatten(2).mT
        extra = [
            None if some is None else some.expand(len(x), -1, -1)
            for some in (self.before, self.after)
        ]
        tokens = torch.cat([part for part in (extra[0], tokens, extra[1]) if part is not None], 1)
        tokens = self.places(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens)[:, -1 if self.extra[1] else 0])


TOKENS = [
    (1, 0, False, (32, 32)),
    (2, 0, False, (32, 32)),
    (5, 0, False, (24, 40)),
    (0, 1, False, (32, 32)),
    (1, 0, True, (32, 32)),
    (1, 0, True, (24, 32)),
]


@pytest.mark.parametrize(("before", "after", "turned", "size"), TOKENS)
def test_tokens_are_folded_back_to_their_grid(
    before: int, after: int, turned: bool, size: tuple[int, int]
) -> None:
    model = drawn(Tokens(before, after, turned, size, fixed=True))
    x = images(2, 3, *size)
    rows, columns = size[0] // 4, size[1] // 4

    def fold(tokens: Tensor) -> Tensor:
        grid = tokens[:, before : before + rows * columns].mT
        if turned:
            return grid.unflatten(2, (columns, rows)).mT
        return grid.unflatten(2, (rows, columns))

    # The last block passes the class token on alone.
    expected = cam(*map(fold, read(model, model.blocks[1], x, 1)), size)[:, None].expand_as(x)
    assert expected.any()
    found = GradCAM(model).explain(x, 1)
    assert found.settings["cam_layer"] == "blocks.1"
    torch.testing.assert_close(found.maps, expected)
    torch.testing.assert_close(
        GradCAM(model, cam_layer="blocks.1").attribute(x, target=1), expected
    )


class Scattered(nn.Module):
    """Positions in an order of its own, of which nothing is known."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mixed, self.head = nn.Conv2d(3, 8, 3), nn.Identity(), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x)).flatten(2)
        order = torch.randperm(hidden.shape[2], generator=torch.Generator().manual_seed(0))
        return self.head(self.mixed(hidden[:, :, order]).mean(2))


def test_what_is_not_certain_is_refused() -> None:
    model, x = drawn(Scattered()), images(2, 3, 10, 10)
    with pytest.raises(ValueError, match=r"cam_layer: .*axes .*channels .*positions"):
        GradCAM(model, cam_layer="mixed").explain(x, 1)
    assert GradCAM(model).explain(x, 1).settings["cam_layer"] == "first"


class Difference(nn.Module):
    """Of two images, and a head that takes one size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor, other: Tensor, gain: float = 1.0) -> Tensor:
        return self.head(torch.tanh(self.conv(x - other)).flatten(1)) * gain


def test_a_second_image_grows_with_the_first() -> None:
    """So few positions show their order in no other way."""
    model, x, other = drawn(Difference()), images(3, 1, 4, 4), images(3, 1, 4, 4, seed=2)
    model.conv.weight.data.fill_(0.1)
    found = GradCAM(model, cam_layer="conv").attribute(x, 1, (other, 2.0))
    expected = cam(*read(lambda y: model(y, other, 2.0), model.conv, x, 1), (4, 4))[:, None]
    torch.testing.assert_close(found, expected)


def test_a_flattened_image_is_refused() -> None:
    model = drawn(
        nn.Sequential(
            nn.Unflatten(1, (1, 6, 6)), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3)
        )
    )
    with pytest.raises(ValueError, match=r"cam_layer: .*axes"):
        GradCAM(model).explain(images(2, 36))


# The automatic layer


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x)).sum((2, 3))


class Wide(nn.Module):
    """Branches, a skip connection, in place, pooled to few positions and then to one."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.join, self.pool, self.head = nn.Identity(), pool, nn.LazyLinear(4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu(self.stem(x))
        branches = torch.cat((self.left(hidden), self.right(hidden)), 1)
        branches += hidden
        return self.head(self.pool(self.join(self.relu(branches))).flatten(1))


@pytest.mark.parametrize(
    "pool",
    [
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d(2),
        nn.AdaptiveMaxPool2d(2),
        nn.MaxPool2d(3),
        nn.AvgPool2d(2),
        nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(7)),
    ],
    ids=lambda pool: str(pool).replace("\n", ""),
)
def test_the_automatic_layer_is_no_branch_and_before_pooling(pool: nn.Module) -> None:
    model, x = Wide(pool), images(2, 3, 9, 9)
    model(x.float())
    drawn(model)
    result = GradCAM(model).explain(x, 1)
    assert result.settings["cam_layer"] == "join"
    expected = cam(*read(model, model.join, x, 1), (9, 9))[:, None].expand_as(x)
    torch.testing.assert_close(result.maps, expected)


def test_layers_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="cam_layer="):
        GradCAM(toys.network((5, 8, 3))).explain(images(2, 5))
    pointwise = drawn(nn.Sequential(nn.Conv2d(5, 3, 1), nn.Flatten()))
    with pytest.raises(ValueError, match="more than one position"):
        GradCAM(pointwise).explain(images(2, 5, 1, 1))
    with pytest.raises(ValueError, match=r"more than one position.*\[B, 3, 1, 1\]"):
        GradCAM(pointwise, cam_layer="0").explain(images(2, 5, 1, 1))
    with pytest.raises(ValueError, match=r"cam_layer: .*once .* 2 times"):
        GradCAM(drawn(Twice()), cam_layer="conv").explain(images(2, 2, 9, 9))
    unused = drawn(Pyramid())
    unused.idle = nn.Conv2d(3, 3, 3)
    with pytest.raises(ValueError, match=r"cam_layer: .*once .* 0 times"):
        GradCAM(unused, cam_layer="idle").explain(images(2, 2, 9, 8))


NETWORKS: dict[str, tuple[str, int]] = {
    "torchvision:resnet18": ("layer4", 64),
    "torchvision:googlenet": ("inception5b", 64),
    "torchvision:densenet121": ("features", 64),
    "torchvision:vgg11": ("features.19", 64),
    "torchvision:efficientnet_b0": ("features", 64),
    "torchvision:swin_t": ("permute", 64),
    "torchvision:convnext_tiny": ("features", 64),
    "timm:vit_tiny_patch16_224": ("blocks.10", 224),
    "timm:res2net50_26w_4s": ("layer4", 64),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_automatic_layers_of_known_networks(name: str) -> None:
    source, _, network = name.partition(":")
    if find_spec(source) is None:
        pytest.skip(f"needs {source}")
    expected, size = NETWORKS[name]
    model = _built(source, network)
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert GradCAM(model).explain(x, 1).settings["cam_layer"] == expected


def _built(source: str, network: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if source == "timm":
            import timm

            found: nn.Module = timm.create_model(network, pretrained=False, num_classes=4)
        else:
            from moreaugrad.models.packages import import_torchvision

            import_torchvision()
            import torchvision

            more = {"aux_logits": False, "init_weights": False} if "google" in network else {}
            build: Callable[..., nn.Module] = getattr(torchvision.models, network)
            found = build(weights=None, num_classes=4, **more)
    return found.eval()

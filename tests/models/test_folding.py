"""Folding batch normalisation: the same function with fewer layers, or the module itself."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from moreaugrad.models import fold_batchnorm, load_model


def awake(module):
    """A module in evaluation mode whose batch normalisations do something."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None:
            for tensor in (layer.running_mean, layer.bias.data):
                tensor.normal_(generator=generator)
            for tensor in (layer.running_var, layer.weight.data):
                tensor.uniform_(0.5, 2, generator=generator)
    return module.eval()


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.first(x)
        return F.relu(self.norm(self.conv(x)) + x).mean((2, 3))


def norms(module):
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())


def test_the_folded_copy_computes_the_same():
    module = awake(Plain()).double()
    state = copy.deepcopy(module.state_dict())
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    folded = fold_batchnorm(module)
    assert norms(folded) == 0
    torch.testing.assert_close(folded(x), module(x))
    assert norms(module) == 2
    assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())
    assert dict(module.named_modules()).keys() == dict(folded.named_modules()).keys()


def test_other_dimensions():
    module = awake(nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3))).double()
    x = torch.randn(4, 2, 8, dtype=torch.float64)
    folded = fold_batchnorm(module)
    assert norms(folded) == 0
    torch.testing.assert_close(folded(x), module(x))


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "tf_efficientnet_b0"])
def test_networks_of_timm_have_activations_in_their_normalisations(name):
    """And convolutions that pad as TensorFlow does."""
    module = awake(load_model(f"timm:{name}", pretrained=False).module).double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    folded = fold_batchnorm(module)
    assert norms(module) > 30
    assert norms(folded) == 0
    torch.testing.assert_close(folded(x), module(x))
    assert dict(module.named_modules()).keys() == dict(folded.named_modules()).keys()


class Standardised(nn.Conv2d):
    """A convolution of another library, whose result is not linear in its weight."""

    def forward(self, x):
        return F.conv2d(x, self.weight / self.weight.norm(), self.bias)


class SharedConvolution(nn.Module):
    """One convolution before two normalisations: folding either would change the other."""

    def __init__(self):
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.b(self.conv(self.a(self.conv(x))))


class SeenTwice(nn.Module):
    """The convolution's output is used besides its normalisation."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return y + self.norm(y)


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x)) if x.sum() > 0 else x


class ReadsItself(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x)) + self.norm.bias.mean() + self.conv.weight.sum()


def of_another_library():
    return nn.Sequential(Standardised(3, 3, 1), nn.BatchNorm2d(3))


@pytest.mark.parametrize(
    "kind", [SharedConvolution, SeenTwice, Untraceable, ReadsItself, of_another_library]
)
def test_what_cannot_be_folded_comes_back_itself(kind):
    module = awake(kind())
    assert fold_batchnorm(module) is module


def test_training_mode_statistics_and_hooks_are_not_folded():
    assert fold_batchnorm(module := Plain().train()) is module
    batch_statistics = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)
    ).eval()
    assert fold_batchnorm(batch_statistics) is batch_statistics
    hooked = awake(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    hooked[0].register_forward_hook(lambda *_: None)
    assert fold_batchnorm(hooked) is hooked


def test_gradients_stay_the_same():
    module = awake(Plain()).double()
    folded = fold_batchnorm(module)
    x = torch.randn(1, 3, 9, 9, dtype=torch.float64, requires_grad=True)
    (before,) = torch.autograd.grad(module(x).sum(), x)
    (after,) = torch.autograd.grad(folded(x).sum(), x)
    torch.testing.assert_close(after, before)

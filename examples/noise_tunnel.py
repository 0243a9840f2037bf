"""Explainers inside Captum's NoiseTunnel, infidelity and sensitivity_max.

All of them need the target. To smooth a sparse map, use its own `sigma` instead of NoiseTunnel.

    python examples/noise_tunnel.py
"""

import torch
from captum.attr import NoiseTunnel
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

from moreaugrad import SimpleGradient, SmoothGrad, SparseMoreauGrad


def network() -> nn.Module:
    """A random smooth convolutional classifier of ten classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2), nn.SiLU(), nn.Conv2d(16, 32, 3, stride=2), nn.SiLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    ).eval()  # fmt: skip


def cosine(a: Tensor, b: Tensor) -> float:
    return float(nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def main() -> None:
    model = network()
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    # NoiseTunnel calls attribute() on noisy copies: without a target each copy would be explained
    # for its own prediction. So fix the target once, at the clean input.
    target = model(x).argmax(1)

    tunnel = NoiseTunnel(SimpleGradient(model))
    torch.manual_seed(2)
    theirs = tunnel.attribute(x, nt_type="smoothgrad", nt_samples=256, stdevs=0.5, target=target)
    ours = SmoothGrad(model, samples=256, sigma=0.5, sigma_mode="absolute").explain(x, target)
    print(
        "NoiseTunnel and SmoothGrad, 256 noise samples each: "
        f"cosine {cosine(theirs, ours.parts[0]):.3f}"
    )
    print(f"SmoothGrad reports its standard error: {float(ours.error[0]):.1%} of the map")

    # A mean of sparse maps has the union of their supports. Smoothing the score instead (sigma=)
    # applies the threshold once, after the mean.
    sparse = SparseMoreauGrad(model, sigma=0, sparsity=0.9)
    torch.manual_seed(2)
    averaged = NoiseTunnel(sparse).attribute(
        x, nt_type="smoothgrad", nt_samples=8, stdevs=0.5, target=target
    )
    smoothed = SparseMoreauGrad(model, sigma=0.5, sigma_mode="absolute", sparsity=0.9).attribute(
        x, target
    )
    print(
        f"zeros: NoiseTunnel(SparseMoreauGrad) {float((averaged == 0).double().mean()):.0%}, ",
        end="",
    )
    print(f"SparseMoreauGrad(sigma=0.5) {float((smoothed == 0).double().mean()):.0%}")

    def perturbed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.randn_like(inputs)
        return noise, inputs - noise

    torch.manual_seed(3)
    missed = infidelity(model, perturbed, x, sparse.attribute(x, target), target=target)
    moved = sensitivity_max(sparse.attribute, x, perturb_radius=0.05, target=target)
    print(f"Captum's infidelity {float(missed):.2e}, sensitivity {float(moved):.3f}")


if __name__ == "__main__":
    main()

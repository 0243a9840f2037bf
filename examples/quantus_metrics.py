"""An `explain_func` for Quantus, and three of its metrics on cells with ground truth maps.

pip install quantus
python examples/quantus_metrics.py
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from moreaugrad import build, load_model
from moreaugrad.data.cells import FEATURE, Cells

METHODS = ("simple-gradient", "moreaugrad-plain", "sparse-moreaugrad-plain")


def explain_func(
    model: nn.Module, inputs: NDArray[np.float32], targets: NDArray[np.int64], **settings: str
) -> NDArray[np.float32]:
    """The function that Quantus calls: from arrays to a magnitude for each pixel."""
    explainer = build(settings["method"], model)
    x, target = torch.as_tensor(inputs), torch.as_tensor(targets)
    # Quantus does not see the status: raise an error rather than score a failed map.
    result = explainer.explain(x.float(), target).raise_if_failed()
    # Quantus refuses a batch of zero maps; a map of zeros is a result of its own.
    if bool((result.zeros == 1).any()):
        raise ValueError(f"{settings['method']}: a map is zero everywhere; lower eta or sparsity")
    magnitudes: NDArray[np.float32] = result.parts[0].abs().sum(1, keepdim=True).numpy()
    return magnitudes


def main() -> None:
    try:
        import quantus
    except ModuleNotFoundError:
        print("skipped: Quantus is not installed (pip install quantus)")
        return
    loaded = load_model("builtin")
    samples = [Cells(size=64, seed=2)[i] for i in (0, 1, 5, 7)]  # classes that have a feature
    pixels = torch.stack([image for image, _, _ in samples])
    x = (pixels - 0.3) / 0.25
    y = loaded.module(x).argmax(1).numpy()
    # The feature of the class: the largest values of the ground truth map.
    masks = torch.stack([truth > FEATURE - 0.01 for _, _, truth in samples])[:, None].numpy()

    quiet = {"disable_warnings": True, "display_progressbar": False}
    metrics = {
        "sparseness (Gini)": quantus.Sparseness(abs=True, **quiet),
        "mass on the feature": quantus.RelevanceMassAccuracy(abs=True, **quiet),
        "largest change": quantus.MaxSensitivity(nr_samples=3, lower_bound=0.02, **quiet),
    }
    print(f"{'':24}" + "".join(f"{name:>22}" for name in metrics))
    for method in METHODS:
        row = f"{method:24}"
        for metric in metrics.values():
            scores = metric(
                model=loaded.module, x_batch=x.numpy(), y_batch=y, s_batch=masks,
                explain_func=explain_func, explain_func_kwargs={"method": method}, device="cpu",
            )  # fmt: skip
            row += f"{np.nanmean(scores):22.3f}"
        print(row)


if __name__ == "__main__":
    main()

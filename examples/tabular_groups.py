"""A tabular model whose features come in groups: which sensors of a machine predict its failure?

Six sensors have four features each. Failures depend on two of the sensors together.
`GroupSparseMoreauGrad` with `index=` keeps or drops whole sensors.

    python examples/tabular_groups.py
"""

import torch
from torch import Tensor, nn

from moreaugrad import GroupSparseMoreauGrad, rho_guidance

SENSORS = ("pressure", "temperature", "vibration", "current", "flow", "humidity")
FEATURES = 4  # of each sensor: mean, spread, trend, peak
CAUSES = (1, 2)  # temperature and vibration


def machines(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Standardised features `[count, 24]`, and 1 where the machine failed."""
    x = torch.randn(count, len(SENSORS) * FEATURES, generator=generator)
    sensors = x.view(count, len(SENSORS), FEATURES)
    heat, shake = sensors[:, CAUSES[0]].mean(1), sensors[:, CAUSES[1]].mean(1)
    return x, (heat + shake + heat * shake > 0.6).long()


def trained(x: Tensor, y: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(x.shape[1], 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.eval()


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = machines(4000, generator)
    model = trained(x, y)
    test_x, test_y = machines(1000, generator)
    accuracy = (model(test_x).argmax(1) == test_y).double().mean()
    print(f"accuracy on machines not seen before: {accuracy:.3f}")

    # One label for each feature: those of one sensor form a group.
    sensor_of = torch.arange(len(SENSORS)).repeat_interleave(FEATURES)
    explainer = GroupSparseMoreauGrad(
        model,
        index=sensor_of,
        sparsity=4 / 6,  # drop four of the six sensors
        rho=0.05,
        sigma=0.3,  # the features are standardised, so sigma is in their own units
        sigma_mode="absolute",
        score="margin",
    )
    failed = test_x[test_y == 1][:5]
    limit = rho_guidance(explainer, failed, target=1).limit
    print(f"rho is {explainer.rho}; the smallest estimate of its limit is {float(limit.min()):.2g}")
    result = explainer.explain(failed, target=1)
    result.raise_if_failed()

    strength = result.parts[0].view(len(failed), len(SENSORS), FEATURES).norm(dim=2)
    for machine, row in enumerate(strength):
        kept = ", ".join(
            f"{SENSORS[i]} {row[i]:.2f}" for i in row.argsort(descending=True) if row[i] > 0
        )
        print(f"machine {machine}: {kept} (error about {result.error[machine]:.0%})")
    fraction = (strength[:, CAUSES] > 0).double().mean()
    print(f"fraction of the true causes among the sensors kept: {fraction:.0%}")


if __name__ == "__main__":
    main()

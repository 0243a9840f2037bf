"""Training for sparse gradients in your own loop: two more lines than plain training.

Two networks learn the same synthetic cells, one of them on perturbed batches. The plain gradient of
that network, without any post-processing, is sparser.

    python examples/train_two_lines.py
"""

import torch
from torch import Tensor, nn

import moreaugrad as mg
from moreaugrad.data.cells import Cells
from moreaugrad.metrics import gini

SIZE, EPOCHS, BATCH = 32, 6, 32


def images(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Images `[count, 3, 32, 32]`, and which of ten kinds of cell each shows."""
    cells = [Cells(size=SIZE, seed=seed, count=count)[i] for i in range(count)]
    return torch.stack([x for x, _, _ in cells]), torch.tensor([label for _, label, _ in cells])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inside, outside in ((3, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 16, 10))


def trained(x: Tensor, y: Tensor, sparse: bool) -> nn.Module:
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    adversary = mg.training.Fast(mg.ElasticNet(0.01, 0.05))  # the first line
    for epoch in range(EPOCHS):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(BATCH):
            inputs, labels = x[rows], y[rows]
            if sparse:
                inputs = adversary(model, inputs, labels)  # the second line
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimiser.step()
    return model.eval()


def main() -> None:
    x, y = images(0, 1000)
    test_x, test_y = images(1, 300)
    for name, sparse in (("plain", False), ("perturbed", True)):
        model = trained(x, y, sparse)
        accuracy = float((model(test_x).argmax(1) == test_y).double().mean())
        maps = mg.SimpleGradient(model).attribute(test_x, target=test_y)
        print(f"{name} training: accuracy {accuracy:.3f}, Gini {float(gini(maps).mean()):.3f}")


if __name__ == "__main__":
    main()

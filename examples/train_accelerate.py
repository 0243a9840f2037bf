"""Training for sparse gradients in a loop of Hugging Face's accelerate: two more lines.

The loop runs as it is on a CPU, on GPUs and in several processes (`accelerate launch`), in mixed
precision and with accumulated gradients: the perturbation of a sample depends on no other one.

    python examples/train_accelerate.py
"""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import moreaugrad as mg
from moreaugrad.data.cells import Cells

SIZE, EPOCHS, BATCH = 32, 4, 32


def images(seed: int, count: int) -> TensorDataset:
    """Images `[3, 32, 32]`, and which of ten kinds of cell each shows."""
    cells = [Cells(size=SIZE, seed=seed, count=count)[i] for i in range(count)]
    x = torch.stack([x for x, _, _ in cells])
    return TensorDataset(x, torch.tensor([label for _, label, _ in cells]))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inside, outside in ((3, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 16, 10))


def main() -> None:
    # Or another tracker; without TensorBoard the figures are printed alone.
    accelerator = Accelerator(
        gradient_accumulation_steps=2, log_with="tensorboard", project_dir="logs"
    )
    accelerator.init_trackers("cells")
    data, test = images(0, 600), images(1, 64)
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    loader = DataLoader(data, batch_size=BATCH // 2, shuffle=True)
    model, optimiser, loader = accelerator.prepare(model, optimiser, loader)
    adversary = mg.training.Fast(mg.ElasticNet(0.01, 0.05))  # the first line
    watch = mg.Watch(*test.tensors, protocol=adversary)
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for x, y in loader:
            with accelerator.accumulate(model), accelerator.autocast():
                x = adversary(model, x, y)  # the second line
                loss = nn.functional.cross_entropy(model(x), y)
                accelerator.backward(loss)
                optimiser.step()
                optimiser.zero_grad()
        figures = watch(model, epoch)
        accelerator.log(figures, step=epoch)
        accelerator.print(f"epoch {epoch}:", {k: round(v, 3) for k, v in figures.items()})
    accelerator.end_training()


if __name__ == "__main__":
    main()

"""A sequence model explained at its embedding, because letters have no gradient.

Synthetic DNA: a sequence binds if it contains the motif TGACTCA. The map has a value for each
entry of each letter's vector; at an embedding each letter is a group.

    python examples/sequence_embedding.py
"""

import torch
from torch import Tensor, nn

from moreaugrad import GroupSparseMoreauGrad

LETTERS, MOTIF = "ACGT", "TGACTCA"
LENGTH, WIDTH = 40, 8


class Binding(nn.Module):
    """From letters `[B, LENGTH]`, as ids, to a logit `[B, 1]`: a soft maximum over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS), WIDTH)
        self.scan = nn.Sequential(nn.Conv1d(WIDTH, 24, 11), nn.SiLU(), nn.Conv1d(24, 1, 1))

    def forward(self, ids: Tensor) -> Tensor:
        evidence: Tensor = self.scan(self.embedding(ids).mT)
        return evidence.logsumexp(2)


def sequences(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, labels (1 for every second, which has the motif), and where the motif starts."""
    ids = torch.randint(len(LETTERS), (count, LENGTH), generator=generator)
    start = torch.randint(LENGTH - len(MOTIF) + 1, (count,), generator=generator)
    place = start[:, None] + torch.arange(len(MOTIF))
    bound = torch.arange(1, count, 2)
    ids[bound[:, None], place[bound]] = torch.tensor([LETTERS.index(letter) for letter in MOTIF])
    return ids, torch.arange(count) % 2, start


def trained(ids: Tensor, labels: Tensor) -> Binding:
    torch.manual_seed(0)
    model = Binding()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for batch in torch.randperm(len(ids)).split(128) * 8:
        optimiser.zero_grad()
        logits = model(ids[batch])[:, 0]
        nn.functional.binary_cross_entropy_with_logits(logits, labels[batch].float()).backward()
        optimiser.step()
    return model.eval()


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    model = trained(*sequences(4000, generator)[:2])
    ids, labels, start = sequences(1000, generator)
    found = model(ids)[:, 0] > 0
    print(f"accuracy on new sequences: {(found == labels.bool()).double().mean():.3f}")

    explainer = GroupSparseMoreauGrad(
        model,
        layer="embedding",
        sparsity=1 - len(MOTIF) / LENGTH,  # keep as many letters as the motif has
        rho=0.05,  # about half of the limit that rho_guidance estimates
        sigma=0,  # a smooth network needs no noise: the map is solved to a residual
    )
    shown = (found & labels.bool()).nonzero()[:8, 0]
    result = explainer.explain(ids[shown], target=1)
    result.raise_if_failed()

    kept = result.parts[0].norm(dim=2) > 0
    for row, letters in zip(ids[shown].tolist(), kept.tolist(), strict=True):
        text = "".join(
            LETTERS[i] if keep else LETTERS[i].lower() for i, keep in zip(row, letters, strict=True)
        )
        print(text)
    offset = torch.arange(LENGTH) - start[shown, None]
    inside = (offset >= 0) & (offset < len(MOTIF))
    print(
        "fraction of the letters kept that belong to the motif: "
        f"{kept[inside].sum() / kept.sum():.0%}"
    )


if __name__ == "__main__":
    main()

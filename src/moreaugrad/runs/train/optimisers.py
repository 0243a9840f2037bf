"""Optimisers by the names of a plan."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from moreaugrad.runs.train.plan import OptimiserPlan


def make_optimiser(plan: OptimiserPlan, model: nn.Module) -> Optimizer:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if plan.name == "sgd":
        return SGD(weights, lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay)
    kind = AdamW if plan.name == "adamw" else Adam
    return kind(weights, lr=plan.lr, betas=plan.betas, weight_decay=plan.weight_decay)

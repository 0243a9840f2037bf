"""`explain`: rows of a table in, a value for each named column out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from moreaugrad.explainers import Explainer
from moreaugrad.explainers.calling import Progress, reporting
from moreaugrad.explainers.expected import GAP
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.explainers.path import BASELINE_SCORE
from moreaugrad.registry import choose
from moreaugrad.score.labels import labels_of, listed
from moreaugrad.score.score import Score
from moreaugrad.settings import expect
from moreaugrad.table.batches import RowBatches
from moreaugrad.table.explanation import TableExplanation
from moreaugrad.table.grouping import Grouping, Groups, origins
from moreaugrad.table.method import Standardised, made
from moreaugrad.table.rows import Preparation, Rows, by_name
from moreaugrad.table.units import AUTO, CONTRIBUTION, ColumnScales


def explain(
    model: Any,
    frame: Any,
    method: str = "expected-gradients",
    *,
    target: int | str | Sequence[int | str] | Tensor | None = None,
    background: Any = None,
    baseline: Any = None,
    scale: Any = None,
    columns: Iterable[str] | None = None,
    reorder: bool = False,
    groups: Groups | None = None,
    preprocess: Any = None,
    values: str = AUTO,
    labels: Sequence[str] | None = None,
    ids: Sequence[int] | Tensor | None = None,
    progress: Progress | bool | None = None,
    **settings: Any,
) -> TableExplanation:
    """A value for each column, or group of columns, of each row of a table.

    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.SiLU(),
    ...                               torch.nn.Linear(4, 2)).eval()
    >>> found = mg.table.explain(network, torch.randn(5, 2), columns=["age", "income"],
    ...                          background=torch.randn(50, 2), samples=8)

    model: takes rows `[B, D]`; a torch module, or a function; or a scikit-learn pipeline whose last
    step is a torch module, which has `preprocess` in the steps before it. A model with one output
    needs the setting task="regression" or "binary".
    frame: a pandas data frame of numbers, or an array or a tensor `[N, D]`; in the units of the
    model's inputs, or of `preprocess`. It is computed in the model's precision and on its device,
    in parts that fit the memory.
    target: a class or its label, or a list with one for each row; None is the prediction of each.
    background: rows like `frame`, best a sample of the training data. Expected gradients draw from
    them, a baseline is made of them, and their standard deviations are the unit in which columns
    are compared: the model is explained as a function of (x - mean) / deviation.
    baseline: what methods with one baseline compare with: "mean" (the default) or "median" of the
    background, a number for all columns, or a row (a mapping by name, `frame.loc[3]`, or a list),
    after `preprocess`.
    scale: the standard deviations, where there is no background: a number, or one by name.
    columns: the names of the columns that the model, or `preprocess`, was trained on, in their
    order; of an array their names. reorder: take them by name, leaving others out; otherwise a
    frame with other columns or another order is refused.
    groups: lists of columns by the name of their group, as the columns of a one-hot encoding. They
    are the groups of group-sparse methods and of a penalty `GroupL2`, and their values are summed.
    preprocess: a fitted transformer with `transform` and `get_feature_names_out`, such as those of
    scikit-learn. Its columns are explained, and grouped by the column that they are made of where
    names show it: `city_Paris` or `onehot__city_Paris` by `city`. groups={} keeps them apart.
    values: what a value is: "deviation" (the map per standard deviation of the column), "unit" (per
    unit of the column) or "product" (the map times the row's distance from the mean of the
    background, the contribution to first order); "auto" is "deviation" where deviations are known
    and else "unit". Methods that have the input as a factor, such as integrated and expected
    gradients, always have contributions in units of the score, whatever the units of columns.
    labels: names of the classes, if the model does not know them. ids: as in `Explainer.explain`.
    progress: True for a bar, or a function of (rows done, rows).
    settings: of the method. `sigma` is in standard deviations of each column, by default 0.3.

    A row has the same values whatever other rows are explained with it.
    Errors: TypeError or ValueError for bad input: columns that are missing, out of order, not
    numbers or not finite; groups of unknown names; and a method that needs a background.
    """
    model, preprocess = _of_pipeline(model, preprocess)
    rows = Rows.of("frame", frame, columns, reorder)
    reader = Preparation.of(rows, preprocess)
    reader.check("frame", rows)
    names = reader.columns
    if groups is None:
        groups = {} if preprocess is None else origins(names, reader.sources)
    grouping = Grouping.of(groups, names)
    known = None
    if background is not None:
        own = Rows.of("background", background, rows.columns, reorder)
        reader.check("background", own)
        known = reader.numbers("background", own)
    units = ColumnScales.of(names, known, None if scale is None else by_name("scale", scale, names))
    network = Standardised.of(model, units)
    explainer, reference = made(method, network, settings, grouping, known, baseline, units)
    kind = units.kind(explainer, values)
    chunks = RowBatches(
        rows=rows, reader=reader, units=units, network=network, explainer=explainer,
        reference=reference, kind=kind,
    )  # fmt: skip
    classes = labels_of(model) if labels is None else dict(enumerate(listed(labels)))
    _check_outputs(explainer, chunks.first, labels)
    aims = _targets(target, classes, len(rows))
    with reporting(progress, method) as report:
        found = chunks.explained(aims, ids, report)
    return TableExplanation(
        explanation=replace(found, labels=classes), rows=rows, grouping=grouping, value=kind,
        base=_base(found, kind), notes=units.notes,
    )  # fmt: skip


def _of_pipeline(model: Any, preprocess: Any) -> tuple[Any, Any]:
    """The module at the end of a scikit-learn pipeline, and the steps before it; another model and
    its preprocess as they are.

    Errors: TypeError for a pipeline that ends with anything but a module; ValueError for one with
    preprocess= as well.
    """
    steps = getattr(model, "steps", None)
    if callable(model) or not isinstance(steps, list) or not steps:
        return model, preprocess
    module = steps[-1][1]
    if not isinstance(module, nn.Module):
        raise TypeError(
            "model: expected a torch module as the last step of a pipeline, got "
            f"{type(module).__name__}: give the network that it holds as model=, and the steps "
            "before it as preprocess=pipeline[:-1]"
        )
    if preprocess is not None:
        raise ValueError(
            "preprocess: expected none, because the steps of the pipeline given as model= are it, "
            f"got {type(preprocess).__name__}: add it to the pipeline as its first step"
        )
    return module, model[:-1] if len(steps) > 1 else None


def _check_outputs(explainer: Explainer, first: Tensor, labels: Sequence[str] | None) -> None:
    """Errors: ValueError for a model with one output, which may be of two tasks, and for another
    number of labels than classes."""
    auto = explainer.task == "auto"
    if not auto and labels is None:
        return
    task = "multilabel" if auto else explainer.task
    bound = Score(explainer.forward_func, task=task, check=False).bind(first, 0)
    outputs = bound.clean_outputs()
    if auto and (outputs.ndim == 1 or outputs.shape[1] == 1):
        raise ValueError(
            "task: expected 'regression', or 'binary' if the output is the logit of a class, "
            "because the model has one output; got 'auto'"
        )
    if labels is not None and bound.probabilities is not None:
        count = bound.probabilities.shape[1]
        expect(len(labels) == count, "labels", f"{count} names", len(labels))


def _targets(target: Any, labels: Mapping[int, str], count: int) -> Any:
    """One target, or a tensor with one for each row. Errors: TypeError, ValueError."""
    listed = target.tolist() if hasattr(target, "tolist") else target
    if not isinstance(listed, list | tuple):
        return _index(listed, labels) if isinstance(listed, str) else listed
    expect(len(listed) == count, "target", f"{count} entries, one for each row", len(listed))
    found = [_index(each, labels) for each in listed]
    return torch.tensor(found, dtype=torch.long)


def _index(wanted: object, labels: Mapping[int, str]) -> int:
    """Errors: TypeError, ValueError."""
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        return wanted
    if not isinstance(wanted, str):
        raise TypeError(f"target: expected classes or labels of them, got {wanted!r}")
    if not labels:
        raise ValueError(
            f"target: expected a number, because no labels are known, got {wanted!r}: give labels="
        )
    choose("target", wanted, labels.values())
    return next(index for index, label in labels.items() if label == wanted)


def _base(explanation: Explanation, kind: str) -> Tensor | None:
    """What the contributions of each row are added to, `[N]`: the score at its baseline, or the
    mean over the baselines drawn; None for a map that is not complete."""
    if kind != CONTRIBUTION:
        return None
    if BASELINE_SCORE in explanation.details:
        return explanation.details[BASELINE_SCORE]
    if GAP not in explanation.details:
        return None
    (maps,) = explanation.parts
    return explanation.score - maps.double().sum(1).to(maps) + explanation.details[GAP]

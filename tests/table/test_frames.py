"""Frames, groups and transformers: each bad input has one error that says what to do."""

import types

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import moreaugrad as mg
from moreaugrad.table.grouping import Grouping, origins

FRAME = pd.DataFrame({"age": [30.0, 40.0, 50.0], "city_Paris": [1, 0, 0], "city_Rome": [0, 1, 0]})
NETWORK = nn.Linear(3, 2).eval()


def explain(frame=FRAME, method="simple-gradient", model=NETWORK, **others):
    return mg.table.explain(model, frame, method, **{"target": 0, **others})


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ([[1.0, 2.0, 3.0]], "frame: expected a pandas data frame.*got list"),
        (FRAME["age"], "frame.iloc.*got Series"),
        (np.zeros(3), r"got ndarray of shape \(3,\)"),
        (FRAME.iloc[:0], "at least one row"),
        (FRAME.set_axis(["a", "b", "a"], axis=1), "different names.*a twice"),
        (FRAME.assign(age=["30", "40", "50"]), r"text or objects in age \(.*'30'.*get_dummies"),
        (FRAME.assign(age=pd.Categorical(["a", "b", "a"])), "age.*preprocess="),
        (FRAME.assign(age=pd.to_datetime(["2020-01-01"] * 3)), "age"),
        (FRAME.assign(age=[1 + 2j] * 3), "age"),
        (FRAME.assign(age=[1, 2, None]), r"NaN or infinite ones in age \(1\), first in row 2"),
        (FRAME.assign(city_Rome=[0, np.inf, np.inf]), r"city_Rome \(2\), first in row 1"),
        (FRAME.assign(age=pd.array([1, None, 3], "Int64")), "row 1.*impute"),
        (np.array([["a", "b", "c"]]), "expected numbers, got an array of <U1"),
        (torch.tensor([[1.0, torch.nan, 0.0]]), r"column 1 \(1\), first in row 0"),
    ],
)  # fmt: skip
def test_frames(frame, words):
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        explain(frame)
    assert str(caught.value).startswith("frame: ")


def test_columns_of_other_types_are_numbers():
    plain = explain(FRAME.astype(float))
    for own in (FRAME, FRAME.astype({"city_Paris": bool}), FRAME.astype({"age": "Int64"}),
                FRAME.astype("float32")):  # fmt: skip
        assert torch.equal(explain(own).values, plain.values)
        assert torch.equal(explain(own).inputs, plain.inputs)


@pytest.mark.parametrize(
    ("frame", "reorder", "words"),
    [
        (FRAME[["age", "city_Rome"]], False, "missing: city_Paris"),
        (FRAME[["age", "city_Rome"]], True, "missing: city_Paris"),
        (FRAME.rename(columns={"age": "Age"}), True, "missing: age; did you mean 'Age'"),
        (FRAME.assign(price=1.0), False, "not the model's: price.*reorder=True"),
        (FRAME[["city_Paris", "age", "city_Rome"]], False, "'city_Paris' .* 'age'"),
    ],
)
def test_columns(frame, reorder, words):
    with pytest.raises(ValueError, match=f"^frame: .*{words}"):
        explain(frame, columns=list(FRAME.columns), reorder=reorder)
    with pytest.raises(ValueError, match=r"^background: "):
        explain(background=frame, reorder=reorder)


def test_names_of_an_array():
    array = FRAME.to_numpy(float)
    assert explain(array).names == ("column 0", "column 1", "column 2")
    with pytest.raises(ValueError, match=r"columns: expected 3 names.*got 2"):
        explain(array, columns=["a", "b"])
    with pytest.raises(TypeError, match="list of names, got the text 'abc'"):
        explain(array, columns="abc")


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"city": ["city_Paris", "city_Rom"]}, "'city_Rom' in 'city'; did you mean 'city_Rome'"),
        ({"city": ["city_Paris"], "town": ["city_Paris"]}, "'city_Paris' in 'city' and in 'town'"),
        ({"city": ["city_Paris", "city_Paris"]}, "'city_Paris' in 'city' and in 'city'"),
        ({"city": "city_Paris"}, "a list of columns for 'city'"),
        ({"city": []}, "a list of columns for 'city'"),
        ({"age": ["city_Paris", "city_Rome"]}, "other names.*'age'"),
        ([["city_Paris", "city_Rome"]], "expected a mapping.*got list"),
    ],
)
def test_groups(groups, words):
    with pytest.raises((TypeError, ValueError), match=f"^groups: .*{words}"):
        explain(groups=groups)


def test_columns_and_groups_that_are_numbers():
    """Columns have their numbers as names, in groups too."""
    frame = FRAME.set_axis([0, 1, 2], axis=1)
    found = explain(frame, groups={7: [0, "1"]})
    assert found.names == ("7", "2")
    assert found.grouping.members == ((0, 1), (2,))
    with pytest.raises(ValueError, match=r"groups: expected other names.*'2'"):
        explain(frame, groups={2: [0, 1]})


def test_a_group_may_have_the_name_of_a_column_in_it():
    found = explain(groups={"age": ["age", "city_Rome"]})
    assert found.names == ("age", "city_Paris")


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_sums_over_groups(numbers):
    columns = [f"c{at}" for at in range(len(numbers))]
    groups = {f"g{n}": [c for c, own in zip(columns, numbers, strict=True) if own == n]
              for n in set(numbers) - {0}}  # fmt: skip
    grouping = Grouping.of(groups, columns)
    maps = torch.arange(2.0 * len(columns)).view(2, -1)
    found = dict(zip(grouping.names, grouping.sums(maps).T.tolist(), strict=True))
    expected = {name: maps[:, [columns.index(own) for own in members]].sum(1).tolist()
                for name, members in groups.items()}  # fmt: skip
    alone = {c: maps[:, at].tolist() for at, c in enumerate(columns) if numbers[at] == 0}
    assert found == expected | alone


@pytest.mark.parametrize(
    ("column", "source"),
    [
        ("age", "age"),
        ("num__age", "age"),
        ("city_Paris", "city"),
        ("onehot__city_Paris", "city"),
        ("city__city_Paris", "city"),
        ("city__age", "age"),
        ("city_size", "city_size"),
        ("onehot__city_size_3", "city_size"),
        ("a__b", "a__b"),
        ("pca0", None),
        ("cityhall", None),
    ],
)
def test_transformed_columns_are_traced_by_name(column, source):
    found = origins([column], ["age", "city", "city_size", "a__b"])
    assert found == ({} if source is None else {source: [column]})


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"method": "expected-gradients"}, "background: .*simple-gradient"),
        ({"method": "integrated-gradients"}, "background: .*baseline=0"),
        ({"method": "integrated-gradients", "baseline": "mean"}, "background: "),
        ({"method": "smoothgrad"}, "background: .*smoothgrad.*scale=1"),
        ({"method": "sparse-moreaugrad"}, "background: .*common unit"),
        ({"method": "sparse-gradient"}, "background: .*sparse-gradient"),
        ({"method": "cafo"}, "background: .*scale="),
        ({"method": "smoothgrad", "background": FRAME.iloc[:1]}, "background: .*deviations"),
        ({"method": "grad-cam"}, "cam_layer: .*columns themselves"),
        ({"layer": "0"}, "layer: "),
        ({"baseline": 0}, "baseline: expected none.*simple-gradient"),
        (
            {"method": "integrated-gradients", "baseline": "mode", "background": FRAME},
            "baseline: expected one of mean, median",
        ),
        ({"method": "integrated-gradients", "baseline": [1, 2]}, "baseline: .* 3, one for each"),
        ({"method": "integrated-gradients", "baseline": {"age": 1}}, "missing: city_Paris"),
        ({"method": "integrated-gradients", "baseline": True}, "baseline: "),
        ({"scale": 0}, "scale: expected numbers > 0"),
        ({"scale": {"age": 1.0}}, "missing: city_Paris"),
        ({"scale": "auto"}, "scale: "),
        ({"values": "mean"}, "values: expected one of"),
        ({"values": "deviation"}, "values: expected background="),
        (
            {"method": "integrated-gradients", "background": FRAME, "values": "unit"},
            "values: expected 'auto'.*contribution",
        ),
        ({"method": "cafo", "scale": 1, "values": "unit"}, "values: expected 'auto'.*cafo"),
        ({"method": "simple"}, "method: expected one of"),
        ({"colour": 1}, "no setting 'colour'"),
        ({"ids": [1]}, "ids: expected 3 numbers"),
        ({"target": [0, 1]}, "target: expected 3 entries"),
        ({"target": "yes"}, "target: .*give labels="),
        ({"target": "yse", "labels": ["no", "yes"]}, "did you mean 'yes'"),
        ({"target": [0, None, 1]}, "target: expected classes"),
        ({"target": 5}, "target: expected numbers from 0 to 1"),
        ({"labels": ["a", "b", "c"]}, "labels: expected 2 names"),
        ({"labels": "ab"}, "labels: expected a list.*got str"),
        ({"labels": {0: "no", 1: "yes"}}, "labels: expected a list.*got dict"),
        ({"labels": [0, 1], "target": 0}, "labels: expected a list.*got list"),
        ({"model": "network"}, "model: expected a torch module"),
        ({"model": nn.Sequential(nn.Linear(3, 2), nn.Dropout())}, "evaluation mode"),
        ({"model": nn.Linear(3, 1).eval()}, "task: expected 'regression', or 'binary'"),
        ({"model": nn.Linear(4, 2).eval()}, r"could not process inputs of shape \(B, 3\)"),
    ],
)
def test_settings(others, words):
    with pytest.raises((TypeError, ValueError), match=words):
        explain(**others)


def test_labels_are_counted_before_rows_are_explained():
    rows: list[int] = []

    class Counting(nn.Linear):
        def forward(self, x):
            rows.append(len(x))
            return super().forward(x)

    many = pd.concat([FRAME] * 400, ignore_index=True)
    with pytest.raises(ValueError, match="labels: expected 2 names"):
        explain(many, model=Counting(3, 2).eval(), labels=["a", "b", "c"])
    assert sum(rows) < len(many)


def test_models_with_one_output():
    one = nn.Linear(3, 1).eval()
    with torch.no_grad():
        one.bias.fill_(-100.0)
    slope = one.weight[0].detach()
    price = explain(model=one, task="regression")
    torch.testing.assert_close(price.values, slope.expand(3, -1))
    absent = explain(model=one, task="binary")
    torch.testing.assert_close(absent.values, -slope.expand(3, -1))
    flat = explain(model=lambda x: x @ slope, task="regression")
    torch.testing.assert_close(flat.values, slope.expand(3, -1))


class Encoder:
    """Duck-typed: the logarithm of the age, and an indicator for each city."""

    def __init__(self, dense=True):
        self.dense = dense

    def transform(self, frame):
        cities = [(frame["city"] == city).to_numpy(float) for city in ("Paris", "Rome")]
        found = np.stack([np.log(frame["age"].to_numpy(float)), *cities], axis=1)
        return found if self.dense else types.SimpleNamespace(toarray=lambda: found)

    def get_feature_names_out(self):
        return np.array(["log__age", "onehot__city_Paris", "onehot__city_Rome"], dtype=object)


RAW = pd.DataFrame(
    {"age": [30.0, 40.0, 50.0], "city": ["Paris", "Rome", "Paris"]}, index=list("xyz")
)


@pytest.mark.parametrize("dense", [True, False])
def test_transformed_columns_are_explained_and_grouped(dense):
    encoder = Encoder(dense)
    weight = NETWORK.weight[0].detach()
    found = explain(RAW, "integrated-gradients", preprocess=encoder, background=RAW)
    x = torch.tensor(encoder.transform(RAW) if dense else Encoder().transform(RAW)).float()
    assert found.columns == tuple(encoder.get_feature_names_out())
    assert found.names == ("age", "city")
    torch.testing.assert_close(found.inputs, x)
    expected = (x - x.mean(0)) * weight
    torch.testing.assert_close(found.explanation.maps, expected, rtol=1e-4, atol=1e-5)
    whole = torch.stack([expected[:, 0], expected[:, 1:].sum(1)], dim=1)
    torch.testing.assert_close(found.values, whole, rtol=1e-4, atol=1e-5)
    assert found.data("age").tolist() == [30.0, 40.0, 50.0]
    assert found.data("city").tolist() == ["Paris", "Rome", "Paris"]
    assert found.to_pandas().index.tolist() == ["x", "y", "z"]
    apart = explain(RAW, preprocess=encoder, groups={})
    assert apart.names == apart.columns
    named = explain(RAW, preprocess=encoder, groups={"all": apart.columns})
    assert named.names == ("all",)


def broken(**changed):
    own = {
        "transform": Encoder().transform,
        "get_feature_names_out": Encoder().get_feature_names_out,
    }
    return types.SimpleNamespace(**own | changed)


def fails(*_):
    raise KeyError("no such\nthing")


@pytest.mark.parametrize(
    ("preprocess", "words"),
    [
        ("scaler", "get_feature_names_out, as those of scikit-learn.*got str"),
        (broken(get_feature_names_out=None), "without get_feature_names_out"),
        (broken(get_feature_names_out=fails), "fitted.*KeyError"),
        (broken(transform=fails), "failed on frame.*KeyError"),
        (broken(transform=lambda frame: np.zeros((2, 3))), "a row for each of 1 rows"),
        (broken(transform=lambda frame: np.zeros((len(frame), 4))), "4 names"),
        (
            broken(transform=lambda frame: np.full((len(frame), 3), np.nan)),
            "after preprocess: .*NaN",
        ),
        (broken(get_feature_names_out=lambda: ["a", "a", "b"]), "preprocess: .*a twice"),
    ],
)
def test_transformers(preprocess, words):
    with pytest.raises((TypeError, ValueError), match=words):
        explain(RAW, preprocess=preprocess)


@pytest.fixture(scope="module")
def raw():
    rng = np.random.default_rng(0)
    return pd.DataFrame({"age": rng.normal(40, 9, 50), "city": rng.choice(["Paris", "Rome"], 50)})


@pytest.fixture(scope="module")
def encoder(raw):
    compose = pytest.importorskip("sklearn.compose")
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    return compose.ColumnTransformer(
        [("num", StandardScaler(), ["age"]), ("onehot", OneHotEncoder(), ["city"])]
    ).fit(raw)


def pipeline(*steps):
    from sklearn.pipeline import Pipeline

    return Pipeline([(f"step{at}", step) for at, step in enumerate(steps)])


def test_pipelines_of_scikit_learn(raw, encoder):
    whole = pipeline(encoder, "passthrough")
    found = explain(raw.iloc[:4], "group-sparse-moreaugrad", preprocess=whole[:-1], background=raw,
                    sigma=0, sparsity=0.5)  # fmt: skip
    assert found.names == ("age", "city")
    kept = found.explanation.maps != 0
    assert torch.equal(kept[:, 1], kept[:, 2])
    assert kept.any(1).all()
    assert not kept.all(1).any()
    with pytest.raises(ValueError, match="preprocess: it failed on frame"):
        explain(raw[["age"]], preprocess=whole[:-1])


def test_a_pipeline_that_ends_with_a_module_is_split(raw, encoder):
    network = nn.Linear(3, 2).eval()
    network.config = types.SimpleNamespace(id2label={0: "no", 1: "yes"})
    given = {"background": raw, "samples": 16, "target": "yes"}
    whole = pipeline(encoder, "passthrough", network)
    found = explain(raw.iloc[:4], "expected-gradients", whole, **given)
    split = explain(raw.iloc[:4], "expected-gradients", network, preprocess=whole[:-1], **given)
    assert torch.equal(found.values, split.values)
    assert found.names == split.names == ("age", "city")
    assert found.target.tolist() == [1] * 4
    alone = explain(model=pipeline(NETWORK))
    assert torch.equal(alone.values, explain().values)
    network.steps = [("model", nn.Linear(3, 1))]  # a module's own business
    assert torch.equal(explain(model=network).values, explain(model=nn.Sequential(network)).values)


@pytest.mark.parametrize("last", ["passthrough", types.SimpleNamespace(fit=None)])
def test_a_pipeline_that_ends_with_no_module_is_refused(last, raw, encoder):
    words = rf"^model: .*torch module as the last step.*got {type(last).__name__}.*pipeline\[:-1\]"
    with pytest.raises(TypeError, match=words):
        explain(raw, model=pipeline(encoder, last))


def test_a_pipeline_has_its_own_preprocess(raw, encoder):
    with pytest.raises(ValueError, match=r"^preprocess: expected none.*got ColumnTransformer"):
        explain(raw, model=pipeline(encoder, NETWORK), preprocess=encoder)

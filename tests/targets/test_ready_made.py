"""The ready-made targets against their formulas, and on models of torchvision and transformers."""

import importlib.util
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import moreaugrad as mg
import toys
from contracts.networks import Segmentation, pictures
from moreaugrad.models.packages import import_torchvision
from moreaugrad.score.checks import TargetError
from moreaugrad.score.outputs import tensor_output
from moreaugrad.targets import ClassSet, Detection, Region, Similarity
from text_models import hugging_face

CPU = torch.device("cpu")


def torchvision() -> Any:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision")
    return import_torchvision()


def read(target: Any, output: Any, batch: int) -> Tensor:
    """The numbers of a target that was bound to a batch."""
    return target.fitted(batch, CPU)(output)


def gradient(target: Any, output: Tensor) -> Tensor:
    leaf = output.clone().requires_grad_()
    return torch.autograd.grad(read(target, leaf, len(output)).sum(), leaf)[0]


# Regions


def test_a_region_is_the_weighted_mean_or_sum_of_a_class() -> None:
    z, mask = toys.normal(3, 4, 5, 6, seed=1), toys.normal(3, 5, 6, seed=2) > 0.5
    for label in (2, [2, 2, 2], torch.tensor([2, 0, 3])):
        own = torch.as_tensor(label).expand(3).tolist()
        expected = torch.stack([z[i, k][mask[i]].sum() for i, k in enumerate(own)])
        torch.testing.assert_close(read(Region(label, mask, "sum"), z, 3), expected)
        torch.testing.assert_close(read(Region(label, mask), z, 3), expected / mask.sum((1, 2)))
    weights = toys.normal(5, 6, seed=3).square()
    expected = (z[:, 1] * weights).sum((1, 2)) / weights.sum()
    torch.testing.assert_close(read(Region(1, weights), {"out": z, "aux": z + 1}, 3), expected)


def test_a_region_of_many_positions_in_half_precision() -> None:
    table = torch.ones(1, 2, 300, 300, dtype=torch.float16)  # more positions than 65504
    assert float(read(Region(1, torch.ones(300, 300)), table, 1)) == pytest.approx(1.0)


def test_nothing_outside_of_a_region_counts() -> None:
    z, mask = toys.normal(1, 2, 3, 3, seed=1), torch.eye(3, dtype=torch.bool)
    z[:, 1, 0, 2] = -torch.inf
    assert torch.isfinite(read(Region(1, mask), z, 1)).all()
    assert torch.equal(gradient(Region(1, mask, "sum"), z)[0, 1], torch.eye(3).double())


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (lambda: Region(3, torch.ones(4, 4)), r"label: .* 0 to 2"),
        (lambda: Region(-1, torch.ones(4, 4)), r"label: .*>= 0"),
        (lambda: Region(1.5, torch.ones(4, 4)), r"label: .*integers"),
        (lambda: Region("sky", torch.ones(4, 4)), r"label: expected numbers, got str"),
        (lambda: Region([0, 1, 2], torch.ones(4, 4)), r"label: .*2, one for each"),
        (lambda: Region(1, torch.ones(6, 6)), r"mask: .*\(2, 3, 4, 4\), got \(6, 6\): resize"),
        (lambda: Region(1, torch.ones(3, 4, 4)), r"mask: .*2, one for each"),
        (lambda: Region(1, torch.ones(4)), r"mask: .*2 axes"),
        (lambda: Region(1, torch.zeros(4, 4)), "empty"),
        (lambda: Region(1, "sky"), "mask: expected numbers, got str"),
        (lambda: Region(1, -torch.ones(4, 4)), "negative"),
        (lambda: Region(1, torch.ones(4, 4), "median"), "reduction"),
        (lambda: Similarity(torch.ones(5)), r"reference: .*length"),
        (lambda: Similarity(torch.zeros(3)), r"reference: .*not zero"),
        (lambda: Similarity(torch.ones(3, 3)), r"reference: .*2, one for each"),
        (lambda: Similarity(torch.ones(3), "embedding"), r"field: .*'embedding' for Tensor"),
        (lambda: ClassSet([0, 1]), r"outputs \[B, K\]"),
        (lambda: ClassSet([]), r"one class at least"),
        (lambda: ClassSet([[0], []]), r"no empty set"),
        (lambda: ClassSet([[0], [1], [2]]), r"classes: .*2, one for each"),
        (lambda: ClassSet([0, -1]), r"classes: .*>= 0"),
        (lambda: ClassSet(1), r"one class at least"),
        (lambda: ClassSet([1], "max"), "reduction"),
        (lambda: Detection(1, [0, 0, 4, 4]), r"for each image a dictionary.*got Tensor"),
        (lambda: Detection(1, [4, 0, 0, 4]), r"box: .*x1 < x2"),
        (lambda: Detection(1, [0, 0, 4]), r"box: .*corners"),
        (lambda: Detection(1, [0, 0, 4, 4], iou=0), "iou"),
    ],
)
def test_mistakes_are_reported(target: Callable[[], Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        mg.SimpleGradient(Segmentation()).explain(pictures(2), target())


def test_a_class_at_positions_survives_metrics_that_explain_again() -> None:
    explainer = mg.SimpleGradient(Segmentation())
    found = explainer.explain(pictures(2), (1, 0, 3))
    mask = torch.zeros(4, 4)
    mask[0, 3] = 1
    same = explainer.explain(pictures(2), Region(1, mask))
    near = mg.metrics.Near(radius=0.02, draws=2)
    values = [mg.metrics.max_sensitivity(explainer, each, near=near) for each in (found, same)]
    torch.testing.assert_close(*values)


# Sets of classes


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=2, max_size=2),
    st.integers(0, 1000),
)
def test_a_set_of_classes(sets: list[list[int]], seed: int) -> None:
    z = 3 * toys.normal(2, 5, seed=seed)
    p = z.softmax(1)
    for reduction in ("mean", "sum", "log-probability"):
        expected = []
        for row, own in enumerate(sets):
            classes = sorted(set(own))
            of = p if reduction == "log-probability" else z
            total = of[row, classes].sum()
            found = {"sum": total, "mean": total / len(classes), "log-probability": total.log()}
            expected.append(found[reduction])
        torch.testing.assert_close(read(ClassSet(sets, reduction), z, 2), torch.stack(expected))


def test_a_set_of_one_class_is_the_class() -> None:
    model, x = toys.network((5, 8, 3)), toys.normal(4, 5, seed=3)
    for score, reduction in (("logit", "sum"), ("log-probability", "log-probability")):
        found = mg.SimpleGradient(model).attribute(x, target=ClassSet([1], reduction))
        expected = mg.SimpleGradient(model, score=score).attribute(x, target=1)
        torch.testing.assert_close(found, expected)


def test_the_log_probability_of_a_likely_set_keeps_its_gradient() -> None:
    """In float32, 1 - p is lost below 1e-7."""
    z = torch.tensor([[30.0, 29.0, 0.0, 1.0]])
    found, expected = (gradient(ClassSet([0, 1]), part) for part in (z, z.double()))
    assert expected.abs().amin() > 0
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    with pytest.raises(ValueError, match="fewer than all 4"):
        read(ClassSet([0, 1, 2, 3]), z, 1)


# Embeddings


def test_similarity_is_the_cosine() -> None:
    embed = nn.Linear(5, 3).double().eval()
    x, r = toys.normal(4, 5, seed=3), toys.normal(4, 3, seed=4)
    e = embed(x).detach()
    for reference in (r, r[0]):
        found = mg.SimpleGradient(embed).explain(x, Similarity(reference))
        rows = reference.expand(4, 3)
        unit = e / e.norm(dim=1, keepdim=True)
        cosine = (unit * rows).sum(1) / rows.norm(dim=1)
        torch.testing.assert_close(found.score, cosine)
        slope = rows / rows.norm(dim=1, keepdim=True) - cosine[:, None] * unit
        expected = slope / e.norm(dim=1, keepdim=True) @ embed.weight
        torch.testing.assert_close(found.maps, expected.detach())


@pytest.mark.parametrize("scale", [1e-9, 1e-30])
def test_similarity_of_short_vectors(scale: float) -> None:
    embed, x = nn.Linear(5, 3, bias=False).double().eval(), toys.normal(4, 5, seed=3)
    r = toys.normal(3, seed=4)
    expected = mg.SimpleGradient(embed).attribute(x, Similarity(r))
    with torch.no_grad():
        embed.weight.mul_(scale)
    found = mg.SimpleGradient(embed).attribute(x, Similarity(scale * r))
    torch.testing.assert_close(found, expected)


def test_similarity_to_a_named_field() -> None:
    e, other = toys.normal(2, 3, seed=1), toys.normal(2, 3, seed=2)
    r = toys.normal(3, seed=3)
    expected = F.cosine_similarity(e, r[None])
    torch.testing.assert_close(read(Similarity(r), SimpleNamespace(pooler_output=e), 2), expected)
    both = {"image_embeds": e, "text_embeds": other}
    torch.testing.assert_close(read(Similarity(r, "image_embeds"), both, 2), expected)
    with pytest.raises(ValueError, match=r"field: .*image_embeds \[2, 3\], text_embeds"):
        read(Similarity(r), both, 2)


# Detections


def found_boxes(*rows: tuple[list[float], int, float]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([row[0] for row in rows]).reshape(-1, 4),
        "labels": torch.tensor([row[1] for row in rows], dtype=torch.long),
        "scores": torch.tensor([row[2] for row in rows], requires_grad=True),
    }


def test_the_best_detection_of_the_class_at_the_box() -> None:
    output = [
        found_boxes(
            ([0, 0, 10, 10], 2, 0.9),  # another class
            ([0, 0, 10, 9], 1, 0.3),  # IoU 0.9
            ([0, 0, 10, 6], 1, 0.6),  # IoU 0.6
            ([0, 0, 10, 4], 1, 0.8),  # IoU 0.4
        ),
        found_boxes(([0, 0, 10, 10], 2, 0.7)),
        found_boxes(),
    ]
    box = [0.0, 0.0, 10.0, 10.0]
    found = read(Detection([1, 2, 2], box), output, 3)
    torch.testing.assert_close(found, torch.tensor([0.6, 0.7, 0.0]))
    (slope,) = torch.autograd.grad(found.sum(), output[0]["scores"], retain_graph=True)
    assert slope.tolist() == [0, 0, 1, 0]
    assert read(Detection([1, 2, 2], box, iou=0.35), output, 3)[0] == 0.8
    assert read(Detection(1, [[0, 0, 10, 4.5]] * 3), output, 3)[0] == 0.8
    for target in (Detection(1, box), Detection([1, 1, 1], box)):
        bound = target.fitted(3, CPU)
        values = bound(output)
        with pytest.raises(ValueError, match=r"none in sample\(s\) \[1, 2\]"):
            bound.accepted(values)
    assert not read(Detection(1, box, required=False), output, 3)[1:].any()


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """torchvision's FCOS with a small random backbone. Its suppression of overlapping boxes, a
    compiled operator that may be missing, is written out."""
    vision = torchvision()

    def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
        overlap, kept = vision.ops.box_iou(boxes, boxes), []
        for i in scores.argsort(descending=True).tolist():
            if all(overlap[i, j] <= threshold for j in kept):
                kept.append(i)
        return torch.tensor(kept, dtype=torch.long)

    monkeypatch.setattr(vision.ops.boxes, "nms", nms)
    detection = vision.models.detection
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Conv2d(3, 32, 3, stride=8, padding=1), nn.SiLU())
        backbone.out_channels = 32
        model = detection.FCOS(
            backbone, num_classes=3, min_size=32, max_size=32, score_thresh=0.0, topk_candidates=8,
            anchor_generator=detection.anchor_utils.AnchorGenerator(((8,),), ((1.0,),)),
            detections_per_img=6,
        ).eval()  # fmt: skip
        nn.init.ones_(model.head.regression_head.bbox_reg.bias)  # boxes of 16 x 16 pixels
    return model


def test_a_detection_model_of_torchvision(detector: nn.Module) -> None:
    x = toys.normal(3, 3, 32, 32, seed=5, dtype=torch.float32).sigmoid()
    output = detector(x)
    boxes = torch.stack([each["boxes"][0] for each in output]).detach()
    labels = torch.stack([each["labels"][0] for each in output])
    target = Detection(labels, boxes)
    found = mg.SimpleGradient(detector).explain(x, target)
    scores = torch.stack([each["scores"][0] for each in output])
    torch.testing.assert_close(found.score, scores.detach())
    assert found.maps.flatten(1).any(1).all()
    for i in range(3):
        leaf = x[i : i + 1].clone().requires_grad_()
        (expected,) = torch.autograd.grad(detector(leaf)[0]["scores"][0], leaf)
        torch.testing.assert_close(found.maps[i : i + 1], expected, rtol=1e-3, atol=1e-6)
    noisy = mg.SmoothGrad(detector, samples=4, sigma=0.02)
    chunks = mg.SmoothGrad(detector, samples=4, sigma=0.02, batch_size=1)
    maps = [each.attribute(x, target=target) for each in (noisy, chunks)]
    torch.testing.assert_close(*maps, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match=r"none in sample\(s\) \[0, 1, 2\]"):
        noisy.explain(x, Detection(1, [0.0, 0.0, 1.0, 1.0]))
    attack = mg.attacks.GaussianNoiseAttack(mg.SimpleGradient(detector), sigma=100.0)
    assert attack.attack(x, target).attacked.score.eq(0).any()  # lost, which is no error there
    with pytest.raises(TypeError, match=r"got list of 3, first dict with boxes.*\['scores'\]"):
        noisy.explain(x)


# Forms of output

Pair = namedtuple("Pair", "features scores")


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (lambda z: {"features": z, "mask": None}, r"dict with features \[2, 3\]: .*\['features'\]"),
        (lambda z: Pair(z, z), r"Pair with features \[2, 3\], scores .*output.features\[:, 0\]"),
        (lambda z: SimpleNamespace(scores=z), r"SimpleNamespace with scores .*output.scores"),
        (lambda z: SimpleNamespace(logits=None, loss=z), r"with loss \[2, 3\]"),
        (lambda z: (z, z), r"tuple of 2, first Tensor \[2, 3\].*output\[0\]\[:, 0\]"),
        (lambda z: [], "list of 0"),
        (lambda z: {}, "got dict"),
        (lambda z: None, "got NoneType"),
        (lambda z: OrderedDict((f"part{k}", z) for k in range(20)), r"part11 \[2, 3\], \.\.\."),
    ],
)
def test_outputs_without_scores_are_described(form: Callable[[Tensor], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        mg.SimpleGradient(lambda x: form(2 * x)).explain(torch.ones(2, 3))


def test_dictionaries_with_scores_are_read() -> None:
    z = torch.ones(2, 3)
    assert tensor_output({"out": z, "aux": 2 * z}) is z
    assert tensor_output({"logits": z, "out": 2 * z}) is z
    assert tensor_output(SimpleNamespace(logits=z)) is z


def test_a_segmentation_model_of_torchvision() -> None:
    vision = torchvision()
    head = vision.models.segmentation.fcn.FCNHead

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 8, 3, stride=2, padding=1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            found = self.body(x)
            return {"out": found, "aux": found}

    model = vision.models.segmentation.FCN(Backbone(), head(8, 4), head(8, 4)).eval()
    x = toys.normal(2, 3, 12, 12, seed=5, dtype=torch.float32)
    z = model(x)["out"].detach()
    assert z.shape == (2, 4, 12, 12)
    mask = z.argmax(1) == z.argmax(1)[:, :1, :1]
    label = z[:, :, 0, 0].argmax(1)
    explainer = mg.SimpleGradient(model)
    found = explainer.explain(x, Region(label, mask, "sum"))
    leaf = x.clone().requires_grad_()
    out = model(leaf)["out"]
    total = sum(out[i, label[i]][mask[i]].sum() for i in range(2))
    torch.testing.assert_close(found.maps, torch.autograd.grad(total, leaf)[0])
    one = torch.zeros(12, 12)
    one[2, 3] = 1
    maps = explainer.attribute(x, target=Region(1, one)), explainer.attribute(x, target=(1, 2, 3))
    torch.testing.assert_close(*maps)
    with pytest.raises(ValueError, match=r"tuple \(class, position, position\)"):
        explainer.explain(x)


def test_an_image_and_a_prompt_in_clip() -> None:
    transformers = hugging_face()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 16}  # fmt: skip
    config = transformers.CLIPConfig(
        text_config={**sizes, "vocab_size": 50, "max_position_embeddings": 8, "bos_token_id": 0,
                     "eos_token_id": 49},
        vision_config={**sizes, "image_size": 8, "patch_size": 4, "projection_dim": 6},
        projection_dim=6,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = transformers.CLIPModel(config).eval().requires_grad_(False)
    prompt = torch.tensor([[0, 7, 23, 49], [0, 31, 5, 49]])
    x = toys.normal(2, 3, 8, 8, seed=5, dtype=torch.float32)

    def embed(images: Tensor) -> object:
        return clip.get_image_features(pixel_values=images)

    leaf = x.clone().requires_grad_()
    both = clip(input_ids=prompt, pixel_values=leaf)
    cosines = both.logits_per_image.diagonal() / clip.logit_scale.exp()
    (expected,) = torch.autograd.grad(cosines.sum(), leaf)
    vision = transformers.CLIPVisionModelWithProjection(config.vision_config).eval()
    vision.load_state_dict(clip.state_dict(), strict=False)
    for model in (embed, vision):
        found = mg.SimpleGradient(model).explain(x, Similarity(both.text_embeds))
        torch.testing.assert_close(found.score, cosines.detach())
        torch.testing.assert_close(found.maps, expected)
    one = mg.SimpleGradient(embed).explain(x[1:], Similarity(both.text_embeds[1]))
    torch.testing.assert_close(one.maps, expected[1:])


def test_models_of_hugging_face() -> None:
    transformers = hugging_face()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 16, "image_size": 8, "patch_size": 4}  # fmt: skip
    x = toys.normal(2, 3, 8, 8, seed=5, dtype=torch.float32)

    config = transformers.CLIPVisionConfig(**sizes, projection_dim=6)
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    reference = toys.normal(6, seed=6, dtype=torch.float32)
    found = mg.SimpleGradient(model).explain(x, Similarity(reference))
    expected = F.cosine_similarity(model(x).image_embeds, reference[None])
    torch.testing.assert_close(found.score, expected.detach())
    with pytest.raises(TypeError, match=r"with image_embeds \[2, 6\].*output.image_embeds\[:, 0\]"):
        mg.SimpleGradient(model).explain(x)

    config = transformers.ViTConfig(**sizes, num_labels=4)
    classifier = transformers.ViTForImageClassification(config).eval()
    logits = classifier(x).logits.detach()
    explainer = mg.SimpleGradient(classifier)
    assert torch.equal(explainer.explain(x).prediction, logits.argmax(1))
    maps = [explainer.attribute(x, target=target) for target in (lambda out: out.logits[:, 1], 1)]
    torch.testing.assert_close(*maps)
    with pytest.raises(TargetError, match=r"failed at.*ImageClassifierOutput with logits \[2, 4\]"):
        explainer.explain(x, lambda out: out.pooler_output[:, 0])

    pooled = transformers.ViTModel(config).eval()
    own = mg.SimpleGradient(pooled).explain(x, Similarity(torch.ones(16)))
    torch.testing.assert_close(
        own.score, F.cosine_similarity(pooled(x).pooler_output, torch.ones(1, 16)).detach()
    )
    with pytest.raises(TypeError, match=r"last_hidden_state \[2, 5, 16\], pooler_output \[2, 16\]"):
        mg.SimpleGradient(pooled).explain(x)


def test_models_of_text_with_several_scores() -> None:
    transformers = hugging_face()
    config = transformers.BertConfig(
        vocab_size=12, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8,
    )  # fmt: skip
    model = transformers.BertForQuestionAnswering(config).eval()
    ids = torch.tensor([[1, 4, 2, 3], [5, 6, 7, 8]])
    layer = "bert.embeddings.word_embeddings"
    explainer = mg.SimpleGradient(model, layer=layer)
    with pytest.raises(TypeError, match=r"start_logits \[2, 4\], end_logits \[2, 4\]"):
        explainer.explain(ids)
    found = explainer.explain(ids, lambda out: out.start_logits[:, 2] + out.end_logits[:, 3])
    out = model(ids)
    torch.testing.assert_close(
        found.score, (out.start_logits[:, 2] + out.end_logits[:, 3]).detach()
    )
    assert found.maps.flatten(1).any(1).all()

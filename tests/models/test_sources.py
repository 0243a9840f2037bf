"""torchvision, timm and transformers as sources; real weights where the data folder is there."""

import csv
import importlib.util
import os
import subprocess
import sys
import urllib.error

import pytest
import torch
from safetensors.torch import save_file

from moreaugrad.data.images import load_image
from moreaugrad.models import Preprocess, fold_batchnorm, load_model
from moreaugrad.models.packages import import_torchvision

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def needs(*packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def weights_of(module, path):
    save_file({key: value.clone() for key, value in module.state_dict().items()}, path)
    return path


@needs("torchvision")
def test_torchvision_is_imported_with_or_without_its_operators():
    code = (
        "from moreaugrad.models.packages import import_torchvision as load\n"
        "models = load().models\n"
        "assert load().models is models\n"
        "import torchvision.transforms\n"
        "print(len(models.list_models(module=models)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


@needs("torchvision")
def test_torchvision_models_bring_preprocessing_and_labels(tmp_path, untouched_generators):
    models = import_torchvision().models
    path = weights_of(models.squeezenet1_1(), tmp_path / "w.safetensors")
    with untouched_generators():
        model = load_model("torchvision:squeezenet1_1", weights=path)
    assert model.preprocess == Preprocess(resize=256, crop=224, **IMAGENET)
    assert model.labels is not None
    assert model.labels[281] == "tabby"
    with torch.no_grad():
        assert model.module(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


@needs("torchvision")
def test_labels_set_the_number_of_classes_of_own_weights(tmp_path):
    models = import_torchvision().models
    path = weights_of(models.squeezenet1_1(num_classes=3), tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("x\ny\nz\n")
    model = load_model("torchvision:squeezenet1_1", path, tmp_path / "labels.txt")
    assert model.labels == ("x", "y", "z")
    with pytest.raises(ValueError, match=r"classifier.1.weight \(expected \(1000, 512, 1, 1\)"):
        load_model("torchvision:squeezenet1_1", path)


@needs("torchvision")
def test_a_wrong_name_of_torchvision_gets_the_nearest():
    with pytest.raises(ValueError, match="no such classifier; did you mean 'squeezenet1_0'"):
        load_model("torchvision:squeezenet10")
    with pytest.raises(ValueError, match="no such classifier"):
        load_model("torchvision:fasterrcnn_resnet50_fpn")


@needs("torchvision")
def test_weights_that_cannot_be_fetched_are_reported(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"could not be fetched .*no network.* --weights FILE"):
        load_model("torchvision:squeezenet1_1")


@needs("torchvision", "timm")
def test_timm_models_bring_preprocessing_and_labels(tmp_path):
    import_torchvision()
    import timm

    path = weights_of(timm.create_model("resnet10t"), tmp_path / "w.safetensors")
    model = load_model("timm:resnet10t", weights=path)
    assert model.preprocess == Preprocess(
        resize=201, crop=(176, 176), interpolation="bicubic", **IMAGENET
    )
    assert model.labels is not None
    assert len(model.labels) == 1000
    with pytest.raises(ValueError, match="no such model; did you mean 'resnet10t"):
        load_model("timm:resnet10tt")


@needs("torchvision", "timm")
def test_timm_preprocessing_equals_its_own(tmp_path):
    import_torchvision()
    import timm
    from PIL import Image

    module = timm.create_model("test_vit")
    path = weights_of(module, tmp_path / "w.safetensors")
    model = load_model("timm:test_vit", weights=path)
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(module))
    photo = Image.radial_gradient("L").resize((300, 260)).convert("RGB")
    torch.testing.assert_close(model.preprocess(photo), theirs(photo), atol=1e-5, rtol=0)


@pytest.fixture
def hf_folder(tmp_path):
    import_torchvision()
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=16, num_labels=3, id2label={0: "a", 1: "b", 2: "c"},
    )  # fmt: skip
    module = transformers.ViTForImageClassification(config)
    module.save_pretrained(tmp_path / "vit")
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path / "vit")
    return tmp_path / "vit", module.eval()


@needs("torchvision", "transformers")
def test_a_local_folder_of_transformers_is_a_model(hf_folder):
    folder, module = hf_folder
    model = load_model(f"hf:{folder}")
    assert model.labels == ("a", "b", "c")
    assert model.preprocess == Preprocess(resize=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.module(x).logits, module(x).logits)


@needs("torchvision", "transformers")
def test_transformers_take_weights_and_labels_of_their_own(hf_folder, tmp_path):
    folder, module = hf_folder
    path = weights_of(module, tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("x\ny\nz\n")
    model = load_model(f"hf:{folder}", path, tmp_path / "labels.txt")
    assert model.labels == ("x", "y", "z")
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.module(x).logits, module(x).logits)


@needs("torchvision", "transformers")
def test_a_backbone_without_a_head_is_refused(hf_folder):
    folder, module = hf_folder
    module.vit.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"not those of a finished classifier.*classifier\.weight"):
        load_model(f"hf:{folder}")


@needs("torchvision", "transformers")
def test_a_folder_that_is_no_model_is_reported(tmp_path):
    with pytest.raises(ValueError, match=r"hf:.*the folder holds no whole model"):
        load_model(f"hf:{tmp_path}")
    with pytest.raises(ValueError, match=r"hf:.*expected a folder"):
        load_model(f"hf:{tmp_path / 'missing'}")


@needs("torchvision", "transformers")
def test_a_named_pipe_in_a_folder_does_not_hang(hf_folder):
    folder, _ = hf_folder
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(ValueError, match=r"hf:.*a folder of files, but config\.json is none"):
        load_model(f"hf:{folder}")


@needs("torchvision", "transformers")
def test_another_kind_of_model_is_reported(tmp_path):
    import transformers

    config = transformers.BertConfig(architectures=["BertForQuestionAnswering"])
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"expected a classifier .*got BertForQuestionAnswering"):
        load_model(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "package"),
    [("torchvision:resnet18", "torchvision"), ("timm:x", "timm"), ("hf:x", "transformers")],
)
def test_a_missing_extra_is_named(name, package, monkeypatch):
    scheme = name.partition(":")[0]
    monkeypatch.setitem(sys.modules, package, None)  # what import takes for "not there"
    import_torchvision.cache_clear()
    with pytest.raises(ValueError, match=f"{scheme}:NAME needs {package}") as caught:
        load_model(name)
    assert str(caught.value).endswith(f"pip install 'moreaugrad[{scheme}]'")


@needs("torchvision")
def test_folding_keeps_what_resnet_computes():
    module = import_torchvision().models.resnet18(num_classes=7).eval()
    x = torch.randn(1, 3, 64, 64)
    folded = fold_batchnorm(module)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(x), module(x), atol=1e-4, rtol=1e-4)


@pytest.mark.data
@needs("torchvision")
def test_squeezenet_recognises_photos(data_folder):
    model = load_model(
        "torchvision:squeezenet1_0",
        weights=data_folder / "models" / "squeezenet1_0-imagenet.safetensors",
        labels=data_folder / "imagenet-classes.txt",
    )
    with (data_folder / "imagenet-sample" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[::5]
    files = [data_folder / "imagenet-sample" / row["file"] for row in rows]
    x = torch.stack([model.preprocess(load_image(file)) for file in files])
    truth = torch.tensor([int(row["class_index"]) for row in rows])
    with torch.no_grad():
        top = model.module(x).topk(5).indices
    assert float((top == truth[:, None]).any(1).float().mean()) > 0.7
    assert float((top[:, 0] == truth).float().mean()) > 0.45
    assert model.labels is not None
    assert all(model.labels[int(row["class_index"])] for row in rows)

"""`model.onnx` is the same model in onnxruntime, and its certificate says how equal it is and at which sizes."""

import json
import logging
import re
import subprocess
import sys
from importlib.util import find_spec
from math import log
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

import segwright
from segwright.errors import ConfigError, MissingPackageError, SegwrightError
from segwright.heads.upernet import means
from segwright.transforms import normalise
from segwright.verbs import export as verb
from segwright.verbs import onnx_file
from segwright.verbs.onnx_file import CannotRecord, record
from slim import SWIN, VIT, slim
from test_export import LEAVES, TREE, write_checkpoint

SMALL = {"model": {"name": None}, "encoder": {"name": "test_resnet", "pretrained": False}}
LITE = SMALL | {"head": {"name": "lite", "width": 8}}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "SIZES", ((64, 96), (61, 47)))


def run(file: Path, image: torch.Tensor) -> np.ndarray:
    """onnxruntime alone: uint8 (B, 3, H, W) -> logits."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": image.numpy().astype(np.float32)})[0]


def run_the_page(folder: Path) -> np.ndarray:
    """The example of docs/export.md as it stands, in `folder`, which holds model.onnx and photo.jpg -> the mask."""
    page = (Path(__file__).parents[1] / "docs/export.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    return np.asarray(Image.open(folder / "mask.png"))


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_the_file_takes_an_images_values_and_gives_the_models_logits_at_any_size(tmp_path: Path, caplog) -> None:
    model = write_checkpoint(tmp_path / "best.pth", ("crack",), **LITE)
    with caplog.at_level(logging.INFO, "segwright"):
        done = segwright.export(tmp_path / "best.pth", tmp_path / "out", "onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"best.pth", "out"}
    assert {path.name for path in done.folder.iterdir()} == {"model.onnx", "certificate.json"}
    for shape in ((1, 3, 77, 53), (3, 3, 40, 200)):
        image = noise(*shape)
        ours = model(normalise(image, [0.5, 0.4, 0.3], [0.2, 0.2, 0.1]))
        np.testing.assert_allclose(run(done.folder / "model.onnx", image), ours.numpy(), rtol=0, atol=verb.TOLERANCE)

    certificate = json.loads((done.folder / "certificate.json").read_text())
    assert certificate == done.certificate
    assert (certificate["equal"], certificate["free_axes"]) == (True, ["batch", "height", "width"])
    places = [(row["height"], row["width"], row["batch"]) for row in certificate["sizes"]]
    assert places == [(*size, batch) for size in ((64, 128), (64, 96), (61, 47)) for batch in (1, 2)]
    assert all(row["max_abs_difference"] < 1e-5 and row["equal_class_ids"] == 1 for row in certificate["sizes"])
    assert "batch, height, width are free" in caplog.text

    graph = onnx.load(done.folder / "model.onnx")
    assert [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.graph.input] == [
        ["batch", 3, "height", "width"]
    ]
    facts = {entry.key: entry.value for entry in graph.metadata_props}
    assert float(facts["threshold"]) == certificate["threshold"] == 0.4
    assert json.loads(facts["classes"]) == ["crack"]
    assert json.loads(facts["input_size"]) == [64, 128]
    assert (json.loads(facts["mean"]), json.loads(facts["std"])) == ([0.5, 0.4, 0.3], [0.2, 0.2, 0.1])
    assert (facts["segwright"], facts["first_weights_origin"]) == (segwright.__version__, "random")
    assert str(Path(segwright.__file__).parent).encode() not in (done.folder / "model.onnx").read_bytes()

    Image.fromarray(noise(90, 120, 3).numpy()).save(done.folder / "photo.jpg")
    mask = run_the_page(done.folder)
    assert mask.shape == (90, 120)
    assert set(np.unique(mask)) <= {0, 1}


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path: Path, monkeypatch) -> None:
    write_checkpoint(tmp_path / "best.pth", **LITE)
    for package in onnx_file.PACKAGES:
        monkeypatch.setattr(onnx_file, "find_spec", lambda name, p=package: None if name == p else find_spec(name))
        with pytest.raises(MissingPackageError, match=rf"'{package}'.*pip install 'segwright\[export\]'"):
            segwright.export(tmp_path / "best.pth", tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_files_of_others_are_not_overwritten_and_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.pth", **LITE)
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_text("somebody's")
    with pytest.raises(ConfigError, match=r"holds model\.onnx, and no certificate\.json of an earlier 'onnx' export"):
        segwright.export(tmp_path / "best.pth", out, "onnx")
    assert (out / "model.onnx").read_text() == "somebody's"
    (out / "certificate.json").write_text('{"format": "onnx", "compared": true}')
    (out / "model.onnx.data").write_text("of an earlier one")
    (out / "notes.txt").write_text("mine")
    segwright.export(tmp_path / "best.pth", out, "onnx")
    assert {path.name for path in out.iterdir()} == {"model.onnx", "certificate.json", "notes.txt"}
    assert run(out / "model.onnx", noise(1, 3, 64, 96)).shape == (1, 2, 64, 96)


def test_where_the_export_fails_nothing_is_left_and_what_stood_there_stands(tmp_path: Path, monkeypatch) -> None:
    """As if the exporter wrote nonsense, in every form that is tried."""
    write_checkpoint(tmp_path / "best.pth", **LITE)
    out = tmp_path / "out"
    out.mkdir()
    (out / "certificate.json").write_text('{"format": "onnx", "compared": true}')
    forms = []

    def wrong(portable: nn.Module, form: onnx_file.Form, path: Path, facts: object) -> None:
        forms.append(form.names)
        path.write_text("no graph")

    monkeypatch.setattr(onnx_file, "record", wrong)
    with pytest.raises(SegwrightError, match=r"for images of 64 x 128 .*does not read the file.*Nothing was written"):
        segwright.export(tmp_path / "best.pth", out, "onnx")
    assert forms == [["batch", "height", "width"], ["batch"], []]
    assert {path.name for path in tmp_path.iterdir()} == {"best.pth", "out"}
    assert [path.read_text() for path in out.iterdir()] == ['{"format": "onnx", "compared": true}']


class Session:
    """onnxruntime's, for a file that holds `compute`."""

    def __init__(self, compute) -> None:
        self.compute = compute

    def run(self, names: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [self.compute(torch.from_numpy(given["image"])).numpy()]


def test_a_logit_that_differs_by_more_than_rounding_is_found(tmp_path: Path, monkeypatch) -> None:
    """Largest logit 3, so 3e-4 are rounding."""
    model = nn.Identity()
    model.encoder = nn.Identity()
    model.encoder.mean, model.encoder.std, model.encoder.in_channels = [0] * 3, [1 / 3] * 3, 3
    reader = onnx_file.Reader(model, 3, None, 1e-4)
    for by, differs in ((2e-4, False), (4e-4, True), (float("nan"), True)):
        session = Session(lambda x, by=by: x * 3 / 255 + by)
        monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, session=session, **__: session)
        if differs:
            with pytest.raises(onnx_file.Different, match=r"at 61 x 47, batch 1 a logit differs by (4\.0e-04|nan)"):
                onnx_file.compare(reader, tmp_path, [(61, 47)], [1])
        else:
            assert onnx_file.compare(reader, tmp_path, [(61, 47)], [1])["equal"]


def test_a_model_that_cannot_take_any_size_is_fixed_to_its_own_and_that_is_said(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    write_checkpoint(tmp_path / "best.pth", **LITE)

    def limited(portable: nn.Module, form: onnx_file.Form, *args) -> None:
        if 2 in form.axes:
            raise CannotRecord("its windows need whole numbers")
        record(portable, form, *args)

    monkeypatch.setattr(onnx_file, "record", limited)
    done = segwright.export(tmp_path / "best.pth", tmp_path / "out", "onnx")
    assert done.certificate["free_axes"] == ["batch"]
    assert done.certificate["fixed_because"] == "batch, height, width not free: its windows need whole numbers"
    assert [(row["height"], row["width"], row["batch"]) for row in done.certificate["sizes"]] == [
        (64, 128, 1),
        (64, 128, 2),
    ]
    assert re.search(r" at 64 x 128, .*; batch is free; .*its windows need", caplog.text)
    assert run(done.folder / "model.onnx", noise(3, 3, 64, 128)).shape == (3, 2, 64, 128)


def test_class_ids_follow_the_threshold_or_the_leaves() -> None:
    """A logit of log(0.4 / 0.6) is the probability 0.4; of a tree's nodes the leaves stand first."""
    one = onnx_file.Reader(nn.Identity(), 1, 0.4, 0)  # type: ignore[arg-type]
    assert one.ids(np.array([log(0.39 / 0.61), log(0.41 / 0.59)]).reshape(1, 1, 1, 2)).tolist() == [[[False, True]]]
    tree = onnx_file.Reader(nn.Identity(), 2, None, 0)  # type: ignore[arg-type]
    assert tree.ids(np.array([1.0, 2.0, 9.0]).reshape(1, 3, 1, 1)).tolist() == [[[1]]]


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_means_for_elsewhere_are_adaptive_pooling(side: int, monkeypatch) -> None:
    maps = [torch.randn(2, 3, *size) for size in ((2, 3), (7, 5), (16, 12))]
    pooled = [means(x, side) for x in maps]
    monkeypatch.setattr("segwright.heads.upernet.for_elsewhere", lambda: True)
    for x, expected in zip(maps, pooled, strict=True):
        torch.testing.assert_close(means(x, side), expected)


MODELS: dict[str, tuple[str, dict, dict]] = {
    "convnext": ("test_convnext", {}, {"head": {"name": "segformer", "width": 16}}),
    "mobilenet, detail path": ("mobilenetv3_small_100", {}, {"model": {"name": None, "detail": 4}}),
    "pvt, aspp": ("pvt_v2_b0", {}, {"head": {"name": "aspp", "width": 16}}),
    "resnet, upernet": ("test_resnet", {}, {"head": {"name": "upernet", "width": 16}}),
    "plain ViT": ("vit_small_patch14_dinov2", VIT, {}),
    "plain ViT with registers, flat": ("vit_small_patch14_reg4_dinov2", VIT, {"encoder": {"pyramid": False}}),
    "plain ViT with rotary positions": ("vit_small_patch16_dinov3", VIT, {"head": {"name": "segformer", "width": 16}}),
    "maxvit": ("test_maxvit", {}, {}),
    "swin": ("swin_tiny_patch4_window7_224", SWIN, {}),
}
FIXED = {"maxvit", "swin"}
"""Whose windows the exporter cannot cut from a map of any size; they are recorded for the training size."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_becomes_a_file(name: str, tmp_path: Path) -> None:
    encoder, options, sections = MODELS[name]
    sections = {"head": {"name": "lite", "width": 8}, "model": {"name": None}} | sections
    sections["encoder"] = {"name": encoder, "pretrained": False} | sections.get("encoder", {})
    with slim(encoder, options):
        write_checkpoint(tmp_path / "best.pth", **sections)
        certificate = segwright.export(tmp_path / "best.pth", tmp_path / "out", "onnx").certificate
    assert certificate["equal"]
    free = ["batch"] if name in FIXED else ["batch", "height", "width"]
    assert certificate["free_axes"] == free, certificate.get("fixed_because")


@pytest.mark.slow
def test_a_whole_segformer_of_a_tree_becomes_a_file_with_the_tree_in_it(tmp_path: Path) -> None:
    sections = {"hierarchy": {"classes": TREE}, "loss": {"triplet_weight": 1.0}}
    write_checkpoint(tmp_path / "best.pth", LEAVES, **sections)
    done = segwright.export(tmp_path / "best.pth", tmp_path / "out", "onnx")
    assert done.certificate["free_axes"] == ["batch", "height", "width"]
    facts = {entry.key: entry.value for entry in onnx.load(done.folder / "model.onnx").metadata_props}
    assert json.loads(facts["channels"]) == ["ground/road", "ground/path", "sky", "ground"]
    assert json.loads(facts["tree"]) == done.certificate["tree"]
    Image.fromarray(noise(90, 120, 3).numpy()).save(done.folder / "photo.jpg")
    assert run_the_page(done.folder).max() <= 2

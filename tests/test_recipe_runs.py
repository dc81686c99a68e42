"""The commands of the SPARK and ARTeFACT READMEs, on photographs that stand in for theirs."""

import csv
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.images import read_image
from test_recipes import REPO, commands_of

SPARKS = {"road": (255, 0, 0), "pavement": (255, 0, 0), "building": (0, 0, 255), "car": (0, 0, 255)}
"""CamVid's classes as SPARK's two colours; the rest is black."""


def run(commands: list[list[str]], recipe: str, folder: Path, data: str, more: dict[str, list[str]]) -> None:
    """Runs a README's commands in `folder`; `more` is added to those of the scripts that it names."""
    for command in commands:
        words = [data if word == "DATA" else word for word in command[1:]]
        words = [str(REPO / "recipes" / recipe / word) if word.endswith((".py", ".yaml")) else word for word in words]
        extra = more.get(Path(words[0]).name, [])
        done = subprocess.run([sys.executable, *words, *extra], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def as_spark(camvid: Path, root: Path) -> Path:
    """Street scenes in SPARK's layout and colours: two sequences as crafts, masks as JPEG, a test folder without."""
    listed = json.loads((camvid / "classes.json").read_text())["classes"]
    colours = {tuple(one["rgb"]): SPARKS[one["name"]] for one in listed if one["name"] in SPARKS}
    crafts = {"0001TP": "Cheops", "0006R0": "XMM Newton"}
    for split, folder in (("train", "train"), ("val", "val")):
        for image in sorted((camvid / split / "images").iterdir()):
            craft = crafts.get(image.name[:6], "Soho")
            mask = read_image(camvid / split / "masks" / f"{image.stem}.png")
            layer = np.zeros_like(mask)
            for old, new in colours.items():
                layer[(mask == old).all(2)] = new
            for kind, suffix, pixels in (("images", "img", read_image(image)), ("mask", "layer", layer)):
                path = root / kind / craft / folder / f"{image.stem}_{suffix}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path, quality=95)
    (root / "stream-1-test").mkdir()
    for number, image in enumerate(sorted((camvid / "test/images").iterdir())):
        (root / f"stream-1-test/test_{number:05d}_img.jpg").write_bytes(image.read_bytes())
    return root


@pytest.mark.timeout(2400)
@pytest.mark.slow
def test_sparks_readme_runs_from_training_to_a_checked_submission(real_data, tmp_path):
    root = as_spark(real_data / "camvid_rgb", tmp_path / "data")
    shorter = ["model.variant=b0", "model.pretrained=false", "training.image_size=96", "training.epochs=4"]
    shorter += ["training.optimizer.lr=1e-3", "schedule.warmup_epochs=1"]
    commands = commands_of(REPO / "recipes/spark/README.md")
    assert len(commands) == 3
    commands = [[word.replace("segformer_b2", "segformer_b0") for word in command] for command in commands]
    run(
        commands,
        "spark",
        tmp_path,
        str(root),
        {"train_segformer.py": shorter, "inference_segformer.py": ["--own-data"]},
    )

    folder = tmp_path / "model_weights_segformer_b0"
    assert (folder / "segformer_best").read_bytes() == (folder / "best.pth").read_bytes()
    params = json.loads((folder / "training_params.json").read_text())
    assert params["config"]["train"]["distributed"] == "auto_zero1"
    assert (folder / "training_params.yaml").is_file()
    metrics = json.loads((tmp_path / "outputs/metrics_valid.json").read_text())
    assert set(metrics["per_group"]) <= {"Cheops", "XMM Newton", "Soho"}
    assert sum(group["num_images"] for group in metrics["per_group"].values()) == metrics["num_images"] == 8
    assert metrics["iou"] > 0.3, "road against sky is learnt in four epochs"
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert len(archive.namelist()) == 8
        layer = np.load(io.BytesIO(archive.read("test_00003_layer.npz")))["data"]
    assert layer.shape == (360, 480, 3)
    assert {tuple(colour) for colour in np.unique(layer.reshape(-1, 3), axis=0)} <= {
        (0, 0, 0),
        (255, 0, 0),
        (0, 0, 255),
    }


@pytest.mark.timeout(2400)
@pytest.mark.slow
def test_artefacts_readme_runs_for_all_three_encoders_and_compares_them(real_data, tmp_path, monkeypatch):
    data = tmp_path / "tiles"
    for split, every in (("train", 8), ("val", 4)):
        for kind in ("images", "masks"):
            (data / split / kind).mkdir(parents=True)
            for path in sorted((real_data / "magnetic_tile" / split / kind).iterdir())[::every]:
                (data / split / kind / path.name).write_bytes(path.read_bytes())
    (data / "classes.json").write_bytes((real_data / "magnetic_tile/classes.json").read_bytes())
    commands = commands_of(REPO / "recipes/artefact/README.md")
    assert len(commands) == 6
    shorter = ["--epochs", "1", "training.batch_size=8", "input.size=64", "input.workers=0", "encoder.pretrained=0"]
    monkeypatch.setenv("SEGWRIGHT_CACHE", str(tmp_path / "cache"))
    for command in commands:
        more = [*shorter, *(["encoder.image_size=64"] if "configs/maxvit_tiny.yaml" in command else [])]
        run([command], "artefact", tmp_path, str(data), {"train.py": more})
    runs = [f"logs/{name}" for name in ("convnext_tiny", "segformer_b3", "maxvit_tiny")]
    words = [sys.executable, "-m", "segwright.cli", "compare", *runs]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "runs on the 13 images of valid" in done.stdout
    with (tmp_path / "comparison/comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["encoder"] for row in rows} == {"convnext_tiny", "segformer_b3", "maxvit_tiny"}
    weights = json.loads((tmp_path / "logs/maxvit_tiny/class_weights.json").read_text())
    assert weights["method"] == "inverse_sqrt"
    assert (tmp_path / "comparison/comparison.html").read_text().count("data:image/jpeg") == 6

"""What docs/python.md shows runs, on small data."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segwright
from runs import small
from segwright.datasets import READERS
from segwright.encoders import create_encoder
from segwright.heads.segformer import SegformerHead

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
TRAIN, LOAD, WHOLE, PARTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def ran(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_training(painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As shown, but with a config that trains in a second."""
    train, seen = segwright.train, []

    def brief(config: dict, **more: Any) -> segwright.Run:
        seen.append((config, more))
        return train(small(painted, tmp_path / "run"))

    monkeypatch.setattr(segwright, "train", brief)
    assert ran(TRAIN)["run"].best == tmp_path / "run" / "best.pth"
    assert seen == [({"data": {"root": "DATA"}}, {"overrides": ["train.epochs=30", "input.size=256"]})]


def test_a_loaded_model_gives_the_mask_that_infer_writes(
    finished: Path, painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(finished / "best.pth", tmp_path)
    split = READERS["coco"].build(READERS["coco"].Config(root=str(painted))).splits["test"]
    Image.fromarray(split.image(0)).save("photo.png")
    mask = ran(LOAD)["mask"].numpy()
    segwright.infer("best.pth", "photo.png", "out", overrides=["predict.threshold=0.4"])
    assert np.array_equal(mask, np.asarray(Image.open("out/photo_mask.png")) == 255)


def test_a_whole_segformer_goes_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = create_encoder("mit_b0")
    segwright.Segmenter(encoder, SegformerHead(encoder.channels, 3)).save_pretrained("FOLDER")
    assert ran(WHOLE)["model"].head.classifier.out_channels == 3
    assert Path("ANOTHER/model.safetensors").is_file()


def test_parts() -> None:
    made = ran(PARTS)
    assert made["logits"].shape == (2, 5, 16, 24)
    assert made["embedding"].shape == (2, 256, 2, 3)

"""`check --show-augment`: the samples of training, drawn; and validation sees none of it."""

import numpy as np
import pytest
from PIL import Image

from pixel_split import write_split
from runs import small
from segwright.cli import main
from segwright.data import EvaluationSet, TrainingSet, evaluation_batches
from segwright.images import read_image
from segwright.transforms import Augment
from segwright.verbs import augment_preview
from segwright.verbs.settings import gather
from segwright.verbs.source import read_source


def test_the_sheet_shows_the_samples_that_training_begins_with(painted, tmp_path, monkeypatch):
    settings = gather(small(painted, tmp_path / "r", augment={"rotate": 30, "mosaic": 0.5}))
    seen = {}

    def grid(cells, titles, columns):
        seen.update(zip(titles, cells, strict=True))
        return cells[0]

    monkeypatch.setattr(augment_preview, "grid", grid)
    augment_preview.show_augment(settings, tmp_path / "sheet.png")
    split = read_source(settings).splits["train"]
    data = TrainingSet(split, (64, 96), Augment(settings.augment), seed=5)
    assert len(seen) == 18
    coloured = ignored = 0
    for index in range(6):
        sample = data[2, index]
        image, mask = sample["image"].permute(1, 2, 0).numpy(), sample["mask"].numpy()
        cell = seen[f"{split.path(index).name}, pass 3"]
        assert np.array_equal(cell[:, :96], image)
        drawn = cell[:, 100:]
        assert np.array_equal(drawn[mask == 0], image[mask == 0])
        assert (drawn[mask == 255] <= image[mask == 255] * 0.35).all()
        coloured += (drawn[mask == 1] != image[mask == 1]).any()
        ignored += (mask == 255).any()
    assert coloured >= 3
    assert ignored >= 3


def test_the_command_writes_a_picture(painted, tmp_path):
    with pytest.raises(SystemExit) as end:
        main(["check", str(painted), "input.size=64", "--quick", "--show-augment", str(tmp_path / "a.png")])
    assert end.value.code == 0
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.width > 3 * 128


def test_validation_sees_every_image_as_it_is(tmp_path):
    split = write_split(tmp_path, [(64, 64)] * 3)
    for batch in (
        next(iter(evaluation_batches(split, (64, 64), 3, 0))),
        [EvaluationSet(split, None)[i] for i in range(3)],
    ):
        for index, sample in enumerate(batch):
            assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), read_image(split.path(index)))
            assert np.array_equal(sample["mask"].numpy(), split.mask(index))

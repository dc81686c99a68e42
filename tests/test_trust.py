"""What training must not swallow: masks of another size, values of no class, stale blocks, foreign files, warnings."""

import io
import json
import logging

import numpy as np
import pytest
from PIL import ExifTags, Image

from pixel_split import write_split
from segwright.checks import check_source
from segwright.data import Config as InputConfig
from segwright.data import TrainingSet, preloaded
from segwright.datasets import artefact, folder, nnunet, seghiero
from segwright.datasets.base import Finding, Source
from segwright.errors import DataError
from segwright.images import image_kind
from segwright.png import write_png
from segwright.splitting import deal
from segwright.transforms import Augment
from segwright.transforms import Config as AugmentConfig
from segwright.verbs.folder import tidy
from segwright.verbs.run_files import remove_run
from segwright.verbs.settings import gather
from segwright.verbs.train import check_usable


@pytest.fixture
def misfit(tmp_path):
    """The second mask is two columns narrower than its image."""
    split = write_split(tmp_path / "data", [(40, 50), (40, 50)])
    write_png(split.annotation(1), split.mask(1)[:, 2:])
    return split


def test_a_mask_of_another_size_names_both_files_and_sizes(misfit):
    with pytest.raises(DataError, match=r"1\.png is 50 x 40 .*1_mask\.png, is 48 x 40"):
        TrainingSet(misfit, (32, 32), Augment(AugmentConfig()), 0)[0, 1]


@pytest.mark.parametrize("own", [False, True])
def test_preloading_does_not_stretch_such_a_mask(misfit, tmp_path, own):
    config = InputConfig(size=32, preload="disk", cache=str(tmp_path / "cache"))
    with pytest.raises(DataError, match="48 x 40"):
        preloaded(config, misfit, {}, own_masks=own)


def test_the_quick_check_sees_sizes_of_mask_files(misfit):
    source = Source(("a", "b", "c", "d"), {"train": misfit})
    assert "48 x 40" in {one.code: one.message for one in check_source(source, quick=True)}["mask-size"]


def test_the_quick_check_sees_masks_that_lie_as_the_file_does(tmp_path):
    split = write_split(tmp_path / "data", [(40, 50), (40, 50)])
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    with Image.open(split.path(0)) as image:
        image.save(split.path(0), exif=tags)
    assert "rotated-mask" in {one.code for one in check_source(Source(("a", "b"), {"train": split}), quick=True)}


def test_other_class_ids_beside_the_same_files_make_another_block(tmp_path):
    root = folder.example(tmp_path / "data")
    for path in root.glob("classes.*"):
        path.unlink()
    config, kept = InputConfig(size=32, preload="disk", cache=str(tmp_path / "cache")), []
    for ids in ((0, 1, 2), (0, 2)):
        table = [{"id": one, "name": f"class {one}"} for one in ids]
        (root / "classes.json").write_text(json.dumps(table))
        split = folder.scan(folder.Config(root=str(root))).splits["train"]
        kept.append(preloaded(config, split, {}, own_masks=True).mask(0).copy())
        np.testing.assert_array_equal(kept[-1], split.mask(0))
    assert not np.array_equal(*kept)


@pytest.mark.parametrize(
    ("reader", "value", "wrong"),
    [(nnunet, 77, True), (nnunet, 255, True), (seghiero, 77, True), (seghiero, 255, False), (artefact, 16, True)],
)
def test_a_value_that_is_no_class_stops_the_reading_of_its_mask(reader, value, wrong, tmp_path):
    root = reader.example(tmp_path / "Dataset001_X")
    split = reader.scan(reader.Config(root=str(root))).splits["train"]
    path = split.annotation(0)
    with Image.open(path) as image:
        ids = np.array(image)
    ids[0, 0] = value
    write_png(path, ids)
    if wrong:
        with pytest.raises(DataError, match=rf"{path.name} holds values that stand for no class: {value}\."):
            split.mask(0)
    else:
        assert split.mask(0)[0, 0] == 255


@pytest.mark.parametrize(("tag", "seen"), [(0, 1), (9, 1), (3, 3)])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_an_orientation_that_exif_does_not_know_counts_as_upright(tag, seen, kind, tmp_path):
    tags, stream = Image.Exif(), io.BytesIO()
    tags[ExifTags.Base.Orientation] = tag
    Image.new("RGB", (20, 10)).save(stream, kind, exif=tags)
    (tmp_path / "x.jpg").write_bytes(stream.getvalue())
    assert image_kind(tmp_path / "x.jpg").orientation == seen


@pytest.mark.parametrize("check", [True, False])
def test_warnings_are_logged_before_training(tmp_path, caplog, check):
    split = write_split(tmp_path / "data", [(64, 64), (64, 64)])
    warning = Finding("warning", "odd", "something is odd.")
    source = Source(("a", "b", "c", "d"), {"train": split, "valid": split}, [warning])
    settings = gather({"data": {"root": str(tmp_path)}, "run": {"check": check}})
    check_usable(Source(source.classes, {"train": split, "valid": []}, [warning]), settings)
    assert [r.levelname for r in caplog.records if "odd: something is odd." in r.message] == ["WARNING"]


def test_force_logs_the_errors_and_goes_on(tmp_path, caplog):
    split = write_split(tmp_path / "data", [(64, 64)])
    settings = gather({"data": {"root": "data"}, "run": {"check": False}})
    error = Finding("error", "duplicate-across", "the same image in two splits.")
    source = Source(("a", "b", "c", "d"), {"train": split, "valid": split}, [error])
    with pytest.raises(DataError, match=r"duplicate-across.*\n.*segwright check data --fix NEW.*with --force\.$"):
        check_usable(source, settings)
    check_usable(source, settings, force=True)
    assert any(r.levelno == logging.ERROR and "duplicate-across" in r.message for r in caplog.records)


@pytest.mark.parametrize("what", ["a mask of another size", "an image that is cut off"])
def test_what_training_stops_at_is_not_forced_and_the_mended_copy_is_named(misfit, tmp_path, caplog, what):
    if what == "an image that is cut off":
        write_png(misfit.annotation(1), misfit.mask(0))
        misfit.path(1).write_bytes(misfit.path(1).read_bytes()[:200])
    source = Source(("a", "b", "c", "d"), {"train": misfit, "valid": []})
    for force in (False, True):
        with pytest.raises(DataError, match=r"segwright check D --fix NEW .*\. Or .*--force does not help") as told:
            check_usable(source, gather({"data": {"root": "D"}}), force)
        assert ".." not in str(told.value)
        assert str(told.value).count("Replace") <= 1
    assert "the run goes on" not in caplog.text


@pytest.mark.parametrize("fresh", [True, False])
def test_a_failed_run_takes_only_its_own_files_away(tmp_path, fresh):
    run = tmp_path / "r"
    (run / "samples").mkdir(parents=True)
    for name in ("config.yaml", "samples/best_1_a.png", "thesis.txt"):
        (run / name).write_text("x")
    with pytest.raises(RuntimeError), tidy(run, fresh=fresh):
        raise RuntimeError
    kept = {"thesis.txt"} if fresh else {"config.yaml", "samples", "thesis.txt"}
    assert {path.name for path in run.iterdir()} == kept
    (run / "thesis.txt").unlink()
    remove_run(run)
    assert not run.exists()


@pytest.mark.parametrize("wanted", [{"valid": 0.8}, {"valid": 0.6, "test": 0.35}])
def test_train_keeps_a_group_whatever_the_share(wanted):
    for count in (len(wanted) + 1, len(wanted) + 2):
        groups = [[place] for place in range(count)]
        for seed in range(5):
            dealt = deal(groups, [frozenset({0})] * count, wanted, [str(n) for n in range(count)], seed)
            assert all(dealt.values()), dealt

"""Evaluate, infer and the command line, on the weights of a tiny run."""

import csv
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segwright
from segwright.cli import main
from segwright.datasets import READERS
from segwright.errors import ConfigError, DataError, SegwrightError, WeightsError
from segwright.images import read_image
from segwright.png import is_prediction, write_png
from segwright.verbs import infer
from segwright.verbs.infer import infer_one, network_logits
from segwright.verbs.infer_files import Written
from segwright.verbs.infer_names import output_names
from segwright.verbs.inputs import find_images
from segwright.verbs.loading import load_model

KEYS = {"iou", "dice", "precision", "recall", "threshold", "num_images", "weights"}


def test_evaluate_writes_the_promised_numbers(finished, tmp_path):
    metrics = segwright.evaluate(finished / "best.pth", output=tmp_path)
    assert metrics.keys() >= KEYS
    assert json.loads((tmp_path / "metrics_test.json").read_text()) == metrics
    assert metrics["num_images"] == 3
    assert metrics["threshold"] == 0.05


def test_evaluate_counts_what_numpy_counts_on_the_masks_that_infer_writes(finished, painted, tmp_path):
    metrics = segwright.evaluate(finished / "best.pth", output=tmp_path, threshold="0.3")
    segwright.infer(finished / "best.pth", painted / "test", tmp_path / "m", overrides=["predict.threshold=0.3"])
    split = READERS["coco"].build(READERS["coco"].Config(root=str(painted))).splits["test"]
    tp = fp = fn = 0
    for i in range(len(split)):
        mask = np.asarray(Image.open(tmp_path / "m" / f"{split.path(i).stem}_mask.png")) == 255
        truth = split.mask(i) == 1
        tp, fp, fn = tp + (mask & truth).sum(), fp + (mask & ~truth).sum(), fn + (~mask & truth).sum()
    assert metrics["iou"] == pytest.approx(tp / max(tp + fp + fn, 1))


def test_the_numbers_of_its_own_data_are_kept_in_the_run_too(finished, painted, tmp_path):
    """Or the next run's evaluation into the same folder would be their end, and `compare` would not find them."""
    run = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    segwright.evaluate(run / "best.pth", output=tmp_path / "out", pictures=False)
    for name in ("metrics_test.json", "per_image_test.csv", "confusion_test.csv"):
        assert (run / "evaluation" / name).read_text() == (tmp_path / "out" / name).read_text()
    kept = (run / "evaluation/metrics_test.json").read_text()
    other = shutil.copytree(painted, tmp_path / "other")
    segwright.evaluate(
        run / "best.pth", output=tmp_path / "out", pictures=False, overrides=[f"data.root={other}"], threshold="0.9"
    )
    assert (run / "evaluation/metrics_test.json").read_text() == kept, "they are other data"


def test_data_in_another_layout_than_the_runs_are_found_out(finished, painted, tmp_path, caplog):
    segwright.convert(painted, tmp_path / "folder", to="folder")
    own = segwright.evaluate(finished / "best.pth", output=tmp_path / "own", pictures=False)
    with caplog.at_level("INFO", "segwright"):
        other = segwright.evaluate(
            finished / "best.pth", output=tmp_path / "o", pictures=False, flags={"data.root": str(tmp_path / "folder")}
        )
    assert "is read as data.name=folder, not as coco" in caplog.text
    assert other["iou"] == own["iou"] > 0


@pytest.mark.slow
def test_threshold_auto_is_the_best_on_valid(finished, tmp_path):
    auto = segwright.evaluate(finished / "best.pth", output=tmp_path, threshold="auto")["threshold"]

    def on_valid(threshold: float) -> float:
        return segwright.evaluate(finished / "best.pth", output=tmp_path, split="valid", threshold=str(threshold))[
            "iou"
        ]

    best = on_valid(auto)
    assert all(best >= on_valid(t) - 1e-9 for t in (0.1, 0.25, 0.4, 0.5, 0.75, 0.9))


def test_masks_and_overlays_have_the_images_own_size(finished, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (71, 53, 3), dtype=np.uint8)).save(source / "a.png")
    for resize in ("nearest", "logits"):
        out = tmp_path / resize
        segwright.infer(finished / "best.pth", source, out, overrides=[f"predict.resize={resize}"])
        mask, picture = read_image(out / "a_mask.png"), read_image(out / "a_overlay.png")
        assert mask.shape == picture.shape == (71, 53, 3)
        assert set(np.unique(mask)) <= {0, 255}
        assert is_prediction(out / "a_mask.png")
        assert is_prediction(out / "a_overlay.png")


def test_nearest_gives_the_networks_mask_enlarged_by_its_nearest_pixel(finished):
    loaded = load_model(finished / "best.pth")
    image = np.random.default_rng(1).integers(0, 255, (128, 192, 3), dtype=np.uint8)
    mask = loaded.predictor.mask(loaded.predictor.at_size(network_logits(loaded, image), image.shape[:2]))
    assert np.array_equal(mask, mask[::2, ::2].repeat(2, 0).repeat(2, 1))


def test_flips_average_the_logits(finished):
    plain = load_model(finished / "best.pth").predictor
    both = load_model(finished / "best.pth", overrides=["predict.flips=true"]).predictor
    x = torch.randint(0, 255, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    turns = [(), (-1,), (-2,), (-2, -1)]
    mean = sum(plain.logits(x.flip(t)).flip(t) for t in turns) / 4
    assert torch.allclose(both.logits(x), mean, atol=1e-5)


def test_one_bad_file_is_reported_and_the_others_are_done(finished, painted, tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    good = next((painted / "test").glob("*.jpg"))
    (folder / "good.jpg").write_bytes(good.read_bytes())
    (folder / "cut.jpg").write_bytes(good.read_bytes()[:600])
    result = segwright.infer(finished / "best.pth", folder, tmp_path / "out")
    assert [path.name for path in result.written] == ["good_mask.png"]
    assert [Path(name).name for name in result.failed] == ["cut.jpg"]
    with pytest.raises(SystemExit) as left:
        main(["infer", "--weights", str(finished / "best.pth"), "--input", str(folder), "--save", str(tmp_path / "o")])
    assert left.value.code == 1


def test_many_images_come_out_in_their_order_as_each_alone_does(finished, tmp_path, monkeypatch):
    """Large ones, which are worked on alone, and broken ones lie between the others."""
    folder, rng = tmp_path / "in", np.random.default_rng(0)
    for number in range(14):
        height = 60 + 7 * (number % 3) + 40 * (number in (4, 5, 9))
        write_png(folder / f"{number:02}.png", rng.integers(0, 256, (height, 80, 3), np.uint8))
    for broken in ("03", "05", "13"):
        (folder / f"{broken}.png").write_bytes((folder / f"{broken}.png").read_bytes()[:300])
    monkeypatch.setattr("segwright.large.LARGE_PX", 95 * 80)
    result = segwright.infer(finished / "best.pth", folder, tmp_path / "out")
    whole = [f"{number:02}" for number in range(14) if number not in (3, 5, 13)]
    assert [path.name for path in result.written] == [f"{name}_mask.png" for name in whole]
    assert [Path(path).stem for path in result.failed] == ["03", "05", "13"]
    loaded = load_model(finished / "best.pth")
    for name in whole:
        alone = infer_one(loaded, folder / f"{name}.png", tmp_path / "alone" / name).mask
        for kind in ("_mask.png", "_overlay.png"):
            assert (alone.parent / (name + kind)).read_bytes() == (tmp_path / "out" / (name + kind)).read_bytes()


def test_no_more_images_are_held_than_threads_write_and_two(finished, tmp_path, monkeypatch):
    """One that is read and one that is predicted, however slow writing is."""
    for number in range(12):
        write_png(tmp_path / "in" / f"{number:02}.png", np.full((64, 64, 3), number, np.uint8))
    monkeypatch.setattr(infer, "THREADS", 3)
    held, most = [], []

    def read(path, *_):
        held.append(path)
        most.append(len(held))
        return read_image(path)

    def write(*_):
        time.sleep(0.05)
        held.pop()
        return Written(tmp_path, np.array([1, 0]), b"", 255)

    monkeypatch.setattr(infer, "read_photograph", read)
    monkeypatch.setattr(infer, "write_pictures", write)
    assert len(segwright.infer(finished / "best.pth", tmp_path / "in", tmp_path / "out").written) == 12
    assert 3 < max(most) <= 3 + 2


def test_fewer_are_held_where_they_are_large_and_a_very_large_one_is_by_itself(finished, tmp_path, monkeypatch):
    """The seventh of ten is very large; of the others two are more pixels than may wait."""
    for number in range(10):
        write_png(tmp_path / "in" / f"{number:02}.png", np.full((64 + (number == 6), 64, 3), number, np.uint8))
    monkeypatch.setattr("segwright.large.LARGE_PX", 64 * 64)
    monkeypatch.setattr(infer, "THREADS", 4)
    monkeypatch.setattr(infer, "HELD_PX", 64 * 64)
    writing, most, beside = [], [], []
    plain_one = infer.infer_one

    def write(path, *_):
        writing.append(path)
        most.append(len(writing))
        time.sleep(0.03)
        writing.remove(path)
        return Written(path, np.array([1, 0]), b"", 255)

    def one(*args):
        beside.append(list(writing))
        return plain_one(*args)

    monkeypatch.setattr(infer, "write_pictures", write)
    monkeypatch.setattr(infer, "infer_one", one)
    result = segwright.infer(finished / "best.pth", tmp_path / "in", tmp_path / "out")
    assert [path.name for path in result.written] == [f"{number:02}.png" for number in range(10)]
    assert max(most) <= 2
    assert beside == [[]]


@pytest.mark.parametrize("stage", ["read_image", "_pictures"])
def test_an_image_for_which_there_is_not_the_memory_is_reported(finished, painted, tmp_path, monkeypatch, stage):
    def none(*_):
        raise MemoryError

    monkeypatch.setattr(f"segwright.verbs.infer_files.{stage}", none)
    result = segwright.infer(finished / "best.pth", painted / "test", tmp_path / "out")
    assert not result.written
    assert {told.rpartition(" does not ")[2] for told in result.failed.values()} == {
        "fit into memory. Shrink it, or set input.size."
    }


def test_what_goes_wrong_in_writing_ends_the_command(finished, painted, tmp_path, monkeypatch):
    def full(*_, **__):
        raise SegwrightError("no space left on the disk")

    monkeypatch.setattr("segwright.verbs.infer_files.write_png", full)
    with pytest.raises(SegwrightError, match="no space left"):
        segwright.infer(finished / "best.pth", painted / "test", tmp_path / "out")


def test_the_shares_are_those_of_the_masks_and_the_page_shows_the_overlays(finished, painted, tmp_path):
    result = segwright.infer(finished / "best.pth", painted / "test", tmp_path)
    (head, *rows) = csv.reader((tmp_path / "mask_shares.csv").read_text().splitlines())
    assert head == ["image", "mask", "crack"]
    assert [row[0] for row in rows] == [path.name for path in find_images(painted / "test")]
    for path, (_, mask, share) in zip(result.written, rows, strict=True):
        assert path.name == mask
        assert float(share) == pytest.approx((np.asarray(Image.open(path)) == 255).mean(), rel=1e-5)
    page = (tmp_path / "masks.html").read_text()
    assert page.count("<img") == 1 + 3  # the legend, and each image
    assert all(row[0] in page for row in rows)


def test_the_page_shows_so_many_images_and_no_earlier_calls(finished, painted, tmp_path, monkeypatch):
    monkeypatch.setattr(infer, "PICTURES", 1)
    folder, weights = tmp_path / "in", finished / "best.pth"
    shutil.copytree(painted / "test", folder)
    (folder / "0.png").write_bytes(b"broken")
    segwright.infer(weights, folder, tmp_path / "out")
    page = (tmp_path / "out" / "masks.html").read_text()
    assert page.count("<img") == 1 + 1
    assert "The first 1 of 3 images." in page
    segwright.infer(weights, folder / "0.png", tmp_path / "out")
    page = (tmp_path / "out" / "masks.html").read_text()
    assert page.count("<img") == 1
    assert "0.png" in page


@pytest.mark.parametrize("name", ["masks.html", "mask_shares.csv", "mask_classes.json"])
def test_another_file_of_a_reports_name_is_not_overwritten(finished, painted, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(DataError, match=f"{name} would be overwritten, and infer did not write it"):
        segwright.infer(finished / "best.pth", painted / "test", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / name).unlink()
    for _ in range(2):  # its own it does overwrite
        assert len(segwright.infer(finished / "best.pth", painted / "test", tmp_path).written) == 3


def test_a_file_that_a_pattern_names_twice_is_predicted_once(finished, tmp_path):
    write_png(tmp_path / "in" / "a" / "x.png", np.zeros((64, 64, 3), np.uint8))
    assert len(find_images(str(tmp_path / "in" / "**" / "**" / "*.png"))) == 1


def test_images_of_one_name_in_two_folders_are_told_apart_in_the_shares(finished, tmp_path):
    for folder in ("a", "b"):
        write_png(tmp_path / "in" / folder / "x.png", np.zeros((64, 64, 3), np.uint8))
    segwright.infer(finished / "best.pth", str(tmp_path / "in" / "*" / "x.png"), tmp_path / "out")
    _, *rows = csv.reader((tmp_path / "out" / "mask_shares.csv").read_text().splitlines())
    assert [row[0] for row in rows] == [str(tmp_path / "in" / folder / "x.png") for folder in ("a", "b")]


def test_an_image_whose_name_leaves_no_room_for_its_masks_is_reported_and_the_others_are_done(finished, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    fits, long = "a" * 243, "b" * 244  # 255 bytes with _overlay.png, and one more
    for stem in (fits, long, "c"):
        Image.new("RGB", (64, 64)).save(folder / f"{stem}.png")
    result = segwright.infer(finished / "best.pth", folder, tmp_path / "out")
    assert [path.name for path in result.written] == [f"{fits}_mask.png", "c_mask.png"]
    ((name, told),) = result.failed.items()
    assert Path(name).stem == long
    assert "256 bytes" in told


def test_photographs_that_are_called_as_masks_are_predicted_and_what_is_left_out_is_said(finished, tmp_path, caplog):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("face.JPG", "face_mask.png", "gas_mask.png", "an_overlay.png"):
        Image.new("RGB", (64, 64), "white").save(folder / name)
    write_png(folder / "old_mask.png", np.zeros((64, 64), np.uint8), prediction=True)
    result = segwright.infer(finished / "best.pth", folder, tmp_path / "out")
    assert {path.name for path in result.written} == {"face_mask.png", "gas_mask_mask.png", "an_overlay_mask.png"}
    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "2 of 5 images are left out: 1 that infer wrote, and 1 that are called as the mask" in told.getMessage()
    assert "face_mask.png" in told.getMessage()


def test_nothing_is_said_where_nothing_is_left_out(painted, caplog):
    assert len(find_images(painted / "test")) == 3
    assert not caplog.records


def test_a_glob_and_a_single_file_work_and_nothing_is_an_error(finished, painted, tmp_path):
    weights = finished / "best.pth"
    one = next((painted / "test").glob("*.jpg"))
    assert len(segwright.infer(weights, one, tmp_path / "a").written) == 1
    assert len(segwright.infer(weights, str(painted / "test" / "*.jpg"), tmp_path / "b").written) == 3
    with pytest.raises(DataError, match="nothing does not exist"):
        segwright.infer(weights, tmp_path / "nothing", tmp_path / "c")


def test_what_a_user_may_not_expect_is_said(finished, tmp_path, caplog):
    """A dark image, and masks of an earlier call; of one class a table of classes would be untrue."""
    write_png(tmp_path / "in" / "dark.png", np.full((64, 64, 3), 14, np.uint8))
    write_png(tmp_path / "in" / "bright.png", np.full((64, 64, 3), 200, np.uint8))
    for name in ("bright_mask.png", "bright_level_mask.png", "earlier_mask.png"):
        write_png(tmp_path / "out" / name, np.zeros((8, 8), np.uint8), prediction=True)
    write_png(tmp_path / "out" / "true_mask.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "out" / "mask_classes.json").write_text('{"mask": []}')
    segwright.infer(finished / "best.pth", tmp_path / "in", tmp_path / "out")
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "1 images are dark, as dark.png, whose brightest value is 14 of 255" in told[0]
    assert f"2 masks in {tmp_path / 'out'} are of earlier calls" in told[1]
    assert not (tmp_path / "out" / "mask_classes.json").exists()


def test_what_was_done_before_a_ctrl_c_is_reported(finished, painted, tmp_path, monkeypatch, caplog):
    calls = iter(range(3))

    def stopped(*args):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return infer.level_masks(*args)

    monkeypatch.setattr(infer, "_masks_of", lambda loaded, path, image: stopped(loaded, image))
    monkeypatch.setattr(infer, "THREADS", 1)
    with pytest.raises(KeyboardInterrupt):
        segwright.infer(finished / "best.pth", painted / "test", tmp_path)
    assert "stopped after 1 of 3 images" in caplog.text
    assert len((tmp_path / "mask_shares.csv").read_text().splitlines()) == 1 + 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_two_files_with_one_stem_do_not_overwrite_each_other(finished, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (64, 64)).save(folder / name)
    assert len({p.name for p in segwright.infer(finished / "best.pth", folder, tmp_path / "out").written}) == 2


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.png", "b.png"], ["a", "b"]),
        (["a.png", "a_coarse.png", "b.png"], ["a.png", "a_coarse.png", "b"]),
        (["a.jpg", "a.png", "b.png"], ["a.jpg", "a.png", "b"]),
        (["a.jpg", "a.png", "a.png.png"], ["a.jpg", "a.png", "a.png.png"]),
        (["x/a.png", "y/a.png"], ["x_a.png", "y_a.png"]),
        (["t/a.png", "t/x/a.png", "t/x/b.png"], ["a.png", "x_a.png", "b"]),
        (
            ["/t/x/a.png", "/t/x_a.jpg", "/t/x_a.png", "/t/y/a.png"],
            ["000000_x_a.png", "x_a.jpg", "x_a.png", "y_a.png"],
        ),
    ],
)
def test_no_two_pictures_have_one_name_also_of_a_trees_levels(files, names):
    endings = ["_mask.png", "_coarse_mask.png", "_coarse_overlay.png"]
    assert output_names([Path(file) for file in files], endings) == names
    assert len({name + ending for name in names for ending in endings}) == len(names) * len(endings)


def test_true_masks_are_never_overwritten_and_predictions_are(finished, tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    for stem in "abcd":
        Image.new("RGB", (64, 64)).save(folder / f"{stem}.png")
    segwright.infer(finished / "best.pth", folder, folder)
    assert len(segwright.infer(finished / "best.pth", folder, folder).written) == 4
    truths = [folder / f"{stem}_mask.png" for stem in "abcd"]
    for truth in truths:
        write_png(truth, np.full((64, 64), 7, np.uint8))
    (folder / "a_overlay.png").unlink()
    with pytest.raises(DataError, match=r"holds 4 files .*\(a_mask.png, b_mask.png, c_mask.png, ...\).*another --save"):
        segwright.infer(finished / "best.pth", folder, folder)
    assert all((read_image(truth) == 7).all() for truth in truths)
    assert not (folder / "a_overlay.png").exists(), "the first image was predicted"


def test_load_gives_logits_at_input_size(finished):
    model = segwright.load(finished / "best.pth")
    assert not model.training
    assert model(torch.zeros(1, 3, 75, 61)).shape == (1, 1, 75, 61)


def test_weights_of_another_model_are_refused(finished, tmp_path):
    with pytest.raises(WeightsError, match="belongs to another model"):
        segwright.evaluate(finished / "best.pth", flags={"encoder.name": "mit_b0"}, output=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_config_file_gives_the_data_and_the_threshold_but_the_checkpoint_its_model(finished, painted, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(f"ENCODER: mit_b0\nIMG_SIZE: 512\nBASE_CHANNELS: 64\nTHRESHOLD: 0.7\nDATA_ROOT: {painted}\n")
    loaded = load_model(finished / "best.pth", file)
    assert loaded.settings.encoder.name == "test_resnet"
    assert loaded.settings.input.pixels() == (64, 96)
    assert loaded.settings.predict.threshold == 0.7
    assert load_model(finished / "best.pth", file, overrides=["input.size=128"]).settings.input.pixels() == (128, 128)


def test_bad_threshold_and_split_are_named(finished, tmp_path):
    with pytest.raises(ConfigError, match="give a number between 0 and 1, or auto"):
        segwright.evaluate(finished / "best.pth", threshold="half", output=tmp_path)
    with pytest.raises(ConfigError, match=r"predict.threshold is 1.5"):
        segwright.evaluate(finished / "best.pth", threshold="1.5", output=tmp_path)
    with pytest.raises(DataError, match="no split 'tset'"):
        segwright.evaluate(finished / "best.pth", split="tset", output=tmp_path)


def run_cli(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    return int(left.value.code or 0)


def test_the_command_line_runs_the_whole_path(painted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_cli("check", str(painted)) == 0
    flags = [
        "--encoder",
        "test_resnet",
        "--pretrained",
        "0",
        "--epochs",
        "2",
        "--lr-head",
        "1e-3",
        "--lr-encoder",
        "1e-4",
    ]
    common = ["train.batch_size=2", "input.size=[64,96]"]
    assert run_cli("train", "--data", str(painted), *flags, "--freeze-epochs", "1", "--seed", "1", *common) == 0
    weights = "runs/segformer_lite/best.pth"
    assert Path(weights).is_file()
    assert run_cli("evaluate", "--data", str(painted), "--weights", weights, "--model", "segformer_lite") == 0
    assert Path("outputs/metrics_test.json").is_file()
    assert run_cli("infer", "--weights", weights, "--input", str(painted / "test"), "--save", "outputs/infer") == 0
    assert len(list(Path("outputs/infer").glob("*_overlay.png"))) == 3


def test_a_users_error_is_one_message_without_a_traceback(tmp_path, capsys):
    assert run_cli("train", "--data", str(tmp_path / "none")) == 1
    shown = capsys.readouterr().err
    assert "error:" in shown
    assert "Traceback" not in shown


def test_check_prints_json_and_ends_with_one_on_errors(painted, tmp_path, capsys):
    assert run_cli("check", str(painted), "--json", "-") == 0
    report = json.loads(capsys.readouterr().out)
    assert "class-shares" in {finding["code"] for finding in report["findings"]}
    assert report["summary"]["splits"]["train"]["images"] == 6
    assert run_cli("check", str(tmp_path)) == 1

"""Preloading: the same pixels, decoded once, in one block that cannot be stale."""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segwright
from pixel_split import PixelSplit, write_split
from runs import same, small, weights_of
from segwright.data import Config, EvaluationSet, Preloaded, TrainingSet, preloaded, training_batches
from segwright.data.block import available_bytes, locked, write_block
from segwright.data.preload import cache_folder
from segwright.errors import ConfigError, DataError, SegwrightError
from segwright.training.stopping import StopRequest
from segwright.transforms import Augment
from segwright.transforms import Config as AugmentConfig

EVERYTHING = AugmentConfig(rot90=True, rotate=30, rare=0.5, mosaic=0.3, hue=0.1, blur=0.3, noise=0.3)


@pytest.fixture
def split(tmp_path: Path) -> PixelSplit:
    return write_split(tmp_path / "data", [(64, 96)] * 6)


def config(tmp_path: Path, size=(64, 96), preload="ram") -> Config:
    return Config(size=list(size) if size else None, preload=preload, cache=str(tmp_path / "cache"))


def blocks(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").iterdir() if path.name != ".lock")


def equal(a, b) -> bool:
    return torch.equal(a["image"], b["image"]) and torch.equal(a["mask"], b["mask"])


@pytest.mark.parametrize("where", ["ram", "disk"])
def test_images_of_the_training_size_give_the_same_samples_under_every_augmentation(split, tmp_path, where):
    held = preloaded(config(tmp_path, preload=where), split, {})
    assert isinstance(held, Preloaded)
    plain, fast = (TrainingSet(s, (64, 96), Augment(EVERYTHING), 3) for s in (split, held))
    assert all(equal(plain[n, i], fast[n, i]) for n in range(5) for i in range(6))


def test_other_sizes_give_the_same_samples_where_the_scale_is_left_alone(tmp_path):
    split = write_split(tmp_path / "data", [(70, 90), (33, 41), (200, 50)])
    held = preloaded(config(tmp_path), split, {})
    still = AugmentConfig(scale=(1, 1))
    plain, fast = (TrainingSet(s, (64, 96), Augment(still), 3) for s in (split, held))
    for n in range(12):
        assert all(equal(plain[n, i], fast[n, i]) for i in range(3)), n


def test_without_a_size_every_image_keeps_its_own(tmp_path):
    split = write_split(tmp_path / "data", [(70, 90), (33, 41), (200, 50)])
    held = preloaded(config(tmp_path, size=None), split, {})
    for index in range(3):
        assert np.array_equal(held.image(index), split.image(index))
        assert np.array_equal(held.mask(index), split.mask(index))


def test_evaluation_keeps_masks_at_their_own_size(tmp_path):
    split = write_split(tmp_path / "data", [(70, 90), (33, 41)])
    held = preloaded(config(tmp_path), split, {}, own_masks=True)
    plain, fast = EvaluationSet(split, (64, 96)), EvaluationSet(held, (64, 96))
    assert all(equal(plain[i], fast[i]) for i in range(2))
    assert fast[0]["mask"].shape == (70, 90)


def test_the_second_start_decodes_nothing(split, tmp_path):
    preloaded(config(tmp_path), split, {"reader": 1})
    assert split.decoded == 6
    again = PixelSplit(split.folder, 6)
    assert isinstance(preloaded(config(tmp_path), again, {"reader": 1}), Preloaded)
    assert again.decoded == 0
    preloaded(config(tmp_path), again, {"reader": 2})
    assert again.decoded == 6
    preloaded(config(tmp_path, size=(32, 32)), again, {"reader": 1})
    assert again.decoded == 12


@pytest.mark.parametrize("changed", ["1.png", "1_mask.png"])
def test_a_file_whose_content_changed_is_seen_though_its_name_size_and_date_did_not(split, tmp_path, changed):
    path = split.folder / changed
    pixels = np.array(Image.open(path))
    Image.fromarray(pixels).save(path, compress_level=0)
    old = path.stat()
    preloaded(config(tmp_path), split, {})
    (outdated,) = blocks(tmp_path)
    pixels[30, 40] ^= 1
    Image.fromarray(pixels).save(path, compress_level=0)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    other = PixelSplit(split.folder, 6)
    held = preloaded(config(tmp_path), other, {})
    assert np.array_equal(held.mask(1) if "mask" in changed else held.image(1), pixels)
    assert len(blocks(tmp_path)) == 1
    assert not outdated.exists()


def test_a_block_that_was_cut_is_written_anew(split, tmp_path):
    held = preloaded(config(tmp_path), split, {})
    (path,) = blocks(tmp_path)
    expected = held.image(5).copy()
    os.truncate(path, 100)
    assert np.array_equal(preloaded(config(tmp_path), split, {}).image(5), expected)


def test_workers_map_the_block_instead_of_getting_a_copy(split, tmp_path):
    held = preloaded(config(tmp_path), split, {})
    sent = pickle.dumps(held)
    assert len(sent) < 5000
    assert np.array_equal(pickle.loads(sent).image(3), held.image(3))
    held.image(3)[:] = 0
    assert pickle.loads(sent).image(3).any(), "one process's writing must not reach the others"


def test_two_processes_that_start_together_decode_once(split, tmp_path):
    starters = [threading.Thread(target=preloaded, args=(config(tmp_path), split, {})) for _ in range(3)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert split.decoded == 6


def test_workers_give_the_same_batches_in_the_networks_memory_order(split, tmp_path):
    held = preloaded(config(tmp_path), split, {})
    runs = []
    for workers in (0, 2):
        loader, sampler = training_batches(held, (64, 96), Augment(EVERYTHING), 3, seed=1, workers=workers)
        sampler.epoch = 2
        runs.append(list(loader))
        assert runs[-1][0]["image"].shape == (3, 3, 64, 96)
        assert runs[-1][0]["image"].is_contiguous(memory_format=torch.channels_last)
    assert all(equal(a, b) and torch.equal(a["index"], b["index"]) for a, b in zip(*runs, strict=True))


def test_a_broken_image_is_named_and_leaves_no_draft(split, tmp_path):
    path = split.path(4)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"4\.png"):
        preloaded(config(tmp_path), split, {})
    assert blocks(tmp_path) == []


def test_an_error_of_reading_a_mask_is_not_taken_for_one_of_writing_the_block(split, tmp_path):
    path = split.annotation(4)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"4\.png or its mask"):
        preloaded(config(tmp_path), split, {})


def test_a_cache_that_cannot_be_written_costs_the_preloading_and_not_the_run(split, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    assert preloaded(config(tmp_path), split, {}) is split
    assert "train is not preloaded" in caplog.text


def test_a_full_disk_is_said_before_anything_is_decoded(split, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert preloaded(config(tmp_path), split, {}) is split
    assert "No space left" in caplog.text
    assert split.decoded == 0
    assert blocks(tmp_path) == []
    with pytest.raises(SegwrightError, match="No space left"):
        write_block(tmp_path / "x", 10, lambda block: None)


KILLED = """
import os, signal, sys
from pathlib import Path
from segwright.data.block import locked, write_block
folder = Path(sys.argv[1])
with locked(folder):
    write_block(folder / "train.uint8", 1000, lambda block: os.kill(os.getpid(), int(sys.argv[2])))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_preloading_leaves_no_block_behind_for_longer_than_the_next(tmp_path, number):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "cache"), str(int(number))])
    assert done.returncode == -number
    assert len(blocks(tmp_path)) == (number == signal.SIGKILL)
    (tmp_path / "cache" / ".mine.tmp").write_text("x")
    with locked(tmp_path / "cache"):
        assert [path.name for path in blocks(tmp_path)] == [".mine.tmp"]


def test_a_sigterm_that_somebody_waits_for_stays_theirs(tmp_path):
    with StopRequest() as stop:
        write_block(tmp_path / "x", 10, lambda block: signal.raise_signal(signal.SIGTERM))
    assert stop.asked == "SIGTERM"
    assert (tmp_path / "x").stat().st_size == 10


def test_too_little_memory_leaves_the_block_on_the_disk_and_says_so(split, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("segwright.data.preload.available_bytes", lambda: 6 * 64 * 96 * 4)
    warmed = []
    monkeypatch.setattr("segwright.data.preload.warm", warmed.append)
    assert isinstance(preloaded(config(tmp_path), split, {}), Preloaded)
    assert "left on the disk" in caplog.text
    assert warmed == []
    monkeypatch.setattr("segwright.data.preload.available_bytes", lambda: 7 * 64 * 96 * 4)
    preloaded(config(tmp_path), split, {})
    assert len(warmed) == 1


def test_memory_is_what_the_machine_and_every_control_group_above_leave(tmp_path, monkeypatch):
    meminfo, own = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text("MemTotal:       100 kB\nMemAvailable:    64 kB\n")
    own.write_text("0::/job/step\n")
    monkeypatch.setattr("segwright.data.block.CGROUPS", tmp_path / "groups")
    assert available_bytes(meminfo, own) == 64 * 1024
    for name, limit in (("job/step", "max"), ("job", "50000")):
        folder = tmp_path / "groups" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text("20000\n")
        (folder / "memory.stat").write_text("anon 15000\nfile 5000\n")
    assert available_bytes(meminfo, own) == 50000 - 20000 + 5000
    assert available_bytes(tmp_path / "none", own) is None


def test_nothing_is_preloaded_unless_asked(split, tmp_path):
    for off in (None, "none"):
        assert preloaded(config(tmp_path, preload=off), split, {}) is split
    assert not (tmp_path / "cache").exists()
    with pytest.raises(ConfigError, match=r"input\.preload is 'rma'.*Did you mean 'ram'"):
        Config(preload="rma")


def test_the_cache_folder_is_the_given_one_then_the_environments_then_the_users(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("SEGWRIGHT_CACHE", raising=False)
    assert cache_folder(None) == Path("/x/segwright")
    monkeypatch.setenv("SEGWRIGHT_CACHE", "/y")
    assert cache_folder(None) == Path("/y")
    assert cache_folder("/z") == Path("/z")


@pytest.mark.slow
def test_a_preloaded_run_ends_with_the_same_weights(finished, painted, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "segwright"):
        sections = {"size": [64, 96], "preload": "ram", "cache": str(tmp_path / "cache")}
        run = segwright.train(small(painted, tmp_path / "r", input=sections))
    assert "preload: 6 images of train" in caplog.text
    assert "preload: 3 images of valid" in caplog.text
    assert same(weights_of(finished), weights_of(run.folder))

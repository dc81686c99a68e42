"""Files are written whole or not at all."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from segwright import checkpoint
from segwright.encoders.weights import read_weights
from segwright.errors import SegwrightError, WeightsError
from segwright.files import draft_folder, draft_of, is_draft, refuse_file, remove_leftovers, write_atomic, write_text

HEADER = {"model": {}, "config": {}, "classes": ["crack"], "mean": [0.5] * 3, "std": [0.5] * 3}

FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # the kernel refuses to write more, as a full disk does
import torch
from segwright import checkpoint
from segwright.errors import SegwrightError
try:
    checkpoint.save(sys.argv[1], {"model": {"w": torch.zeros(100_000)}})
except SegwrightError as error:
    print(error)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_keeps_the_old_file_and_leaves_no_draft(tmp_path):
    write_text(tmp_path / "a", "old")

    def half(file):
        file.write(b"new")
        raise OSError("disk full")

    with pytest.raises(SegwrightError, match="disk full"):
        write_atomic(tmp_path / "a", half)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_whatever_ends_a_write_leaves_no_draft_and_stays_what_it_is(tmp_path, error):
    def half(file):
        file.write(b"new")
        raise error

    with pytest.raises(error):
        write_atomic(tmp_path / "a", half)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127])
def test_a_name_as_long_as_any_can_be_is_written(tmp_path, name):
    write_text(tmp_path / name, "x")
    assert names(tmp_path) == [name]


def test_a_draft_folder_takes_its_place_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "in" / "out"
    with pytest.raises(SegwrightError, match=r"out could not be written .*No such file"), draft_folder(folder) as draft:
        (draft / "no folder" / "a").write_text("x")
    assert names(folder.parent) == []
    with pytest.raises(RuntimeError, match="a bug"), draft_folder(folder) as draft:
        raise RuntimeError("a bug")
    assert names(folder.parent) == []
    with draft_folder(folder) as draft:
        write_text(draft / "a", "first")
        assert not folder.exists()
    write_text(folder / "mine", "x")
    with draft_folder(folder) as draft:
        write_text(draft / "a", "second")
        assert (folder / "a").read_text() == "first"
    assert names(folder) == ["a", "mine"]
    assert (folder / "a").read_text() == "second"
    with pytest.raises(SegwrightError, match="could not be written"), draft_folder(folder / "a"):
        pass


def test_drafts_of_two_long_names_with_one_beginning_differ(tmp_path):
    one, other = draft_of(tmp_path / ("a" * 200)), draft_of(tmp_path / ("a" * 201))
    assert one != other
    assert is_draft(one)
    assert is_draft(other)


def test_a_full_disk_is_called_one_where_pytorch_does_not_say_so_and_nothing_else_is(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0))

    def write(error):
        def fail(_):
            raise error

        write_atomic(tmp_path / "x", fail)

    with pytest.raises(SegwrightError, match="no space is left on the disk"):
        write(RuntimeError("unexpected pos 8036352 vs 8036240"))
    with pytest.raises(SegwrightError, match="Read-only file system"):
        write(OSError(30, "Read-only file system"))


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path):
    path = tmp_path / "last.pth"
    checkpoint.save(path, {**HEADER, "model": {"w": torch.ones(3)}})
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True)
    assert "could not be written" in done.stdout, done.stderr
    assert names(tmp_path) == ["last.pth"]
    assert checkpoint.load(path)["model"]["w"].tolist() == [1, 1, 1]


def test_a_folder_that_is_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "runs").write_text("I am a file")
    with pytest.raises(SegwrightError, match="runs is a file, where a folder is needed"):
        write_text(tmp_path / "runs" / "a", "x")


def test_leftovers_of_a_kill_are_removed_and_nothing_else(tmp_path):
    for name in (".last.pth.77.tmp", draft_of(tmp_path / "last.pth").name, "last.pth", ".hidden", ".mine.tmp"):
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", ".mine.tmp", "last.pth"]


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "model": Evil(), "config": {}}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"holds a Python object \(posix.system\).*could run code"):
        checkpoint.load(tmp_path / "evil.pth")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04 no zip", "cut off or damaged"),
        (b'{"classes": []}', "it begins with .*classes"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_our_own_words(tmp_path, content, seen):
    (tmp_path / "x.pth").write_bytes(content)
    for reading in (checkpoint.load, read_weights):
        with pytest.raises(WeightsError, match=seen) as told:
            reading(tmp_path / "x.pth")
        assert not re.search("torch.load|miniz|weights_only", str(told.value))


def test_a_cut_checkpoint_another_dictionary_and_none_at_all_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    checkpoint.save(path, {**HEADER, "model": {"w": torch.zeros(5000)}})
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(WeightsError, match="cut off or damaged") as told:
        checkpoint.load(path)
    assert "miniz" not in str(told.value)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(WeightsError, match="no Segwright checkpoint"):
        checkpoint.load(path)
    torch.save({**HEADER, "format": 99}, path)
    with pytest.raises(WeightsError, match="newer Segwright"):
        checkpoint.load(path)
    torch.save({**HEADER, "format": "x"}, path)
    with pytest.raises(WeightsError, match="lacks format"):
        checkpoint.load(path)
    with pytest.raises(WeightsError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "none.pth")


def test_weights_of_another_model_are_named(tmp_path):
    model = torch.nn.Linear(3, 2)
    other = {"model": {"weight": torch.zeros(4, 3), "extra": torch.zeros(1)}}
    with pytest.raises(WeightsError) as caught:
        checkpoint.load_weights(model, other, "x.pth")
    said = "1 weights missing (bias), 1 too many (extra), 1 of another shape (weight (4, 3) instead of (2, 3))"
    assert said in str(caught.value)


def test_a_file_in_the_way_of_a_folder_is_said_and_not_the_disk(tmp_path):
    (tmp_path / "out").touch()
    for target in (tmp_path / "out" / "a.json", tmp_path / "out" / "deep" / "a.json"):
        with pytest.raises(SegwrightError, match="out is a file, where a folder is needed") as told:
            write_text(target, "x")
        assert "space" not in str(told.value)
    with pytest.raises(SegwrightError, match="is a folder, and a file is to be written there"):
        write_text(tmp_path, "x")
    with pytest.raises(SegwrightError, match="Choose another name with --save"):
        refuse_file(tmp_path / "out", "--save")
    refuse_file(tmp_path / "new")

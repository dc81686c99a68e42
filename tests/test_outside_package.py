"""docs/adding-parts.md, tried as it stands: a head and an encoder of one's own, as a package and in a checkout."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch

import segwright
from conftest import absent
from runs import small
from segwright.encoders import create_encoder, outside
from segwright.errors import ConfigError, SegwrightError
from segwright.heads import HEADS
from segwright.registry import Catalogue

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-parts.md").read_text()
METADATA = "Metadata-Version: 2.1\nName: segwright-mine\nVersion: 0.1\n"
MODULES = ("mine", "mine_net_module")


def block(kind: str, holding: str) -> str:
    """The page's block of code that holds this text."""
    found = [text for text in re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) if holding in text]
    assert len(found) == 1, f"docs/adding-parts.md: {len(found)} blocks with {holding}"
    return found[0]


HEAD, ENCODER, LINE = (
    block("python", "class MineHead"),
    block("python", "class MineNet"),
    block("python", '"mine": mine'),
)
PROJECT = block("toml", "segwright.heads") + '\n[project.entry-points."segwright.encoders"]\nmine = "mine_net_module"\n'
POINTS = "[segwright.heads]\nmine = mine\n[segwright.encoders]\nmine = mine_net_module\n"


def write_package(folder: Path) -> Path:
    folder.mkdir()
    (folder / "mine.py").write_text(HEAD)
    (folder / "mine_net_module.py").write_text(ENCODER)
    return folder


def install(folder: Path, points: str) -> Path:
    """As pip leaves an installed package beside its modules."""
    info = folder / "segwright_mine-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(points)
    return folder


@pytest.fixture
def clean(monkeypatch):
    """Catalogues that have not looked for outside packages yet, and forget afterwards what they find."""
    monkeypatch.setattr(HEADS, "_parts", dict(HEADS._parts))
    monkeypatch.setattr(HEADS, "_complete", False)
    outside.import_outside.cache_clear()
    yield
    outside.import_outside.cache_clear()
    for name in MODULES:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


@pytest.mark.filterwarnings("ignore:Overwriting mine_net in registry")
@pytest.mark.slow
def test_an_installed_packages_head_and_encoder_train_by_their_names(painted, tmp_path, monkeypatch, clean):
    monkeypatch.syspath_prepend(str(install(write_package(tmp_path / "package"), POINTS)))
    assert "mine" in sorted(HEADS)
    sections = {
        "model": {"name": None},
        "head": {"name": "mine", "width": 8},
        "encoder": {"name": "mine_net", "pretrained": False},
        "train": {"epochs": 2, "freeze_epochs": 0},
    }
    run = segwright.train(small(painted, tmp_path / "run", **sections))
    model = segwright.load(run.best)
    assert type(model.head).__module__ == "mine"
    assert model.encoder.channels == (16, 32, 64, 128)
    assert model.encoder.strides == (4, 8, 16, 32)
    assert model.encoder.mean == (0.5, 0.5, 0.5)
    assert (model.head.width, model(torch.zeros(1, 3, 50, 70)).shape) == (8, (1, 1, 50, 70))


@pytest.mark.filterwarnings("ignore:Overwriting mine_net in registry")
def test_an_outside_encoder_takes_files_strictly_and_other_channels(tmp_path, monkeypatch, clean):
    monkeypatch.syspath_prepend(str(install(write_package(tmp_path / "package"), POINTS)))
    first = create_encoder("mine_net", in_channels=5)
    assert len(first(torch.zeros(1, 5, 64, 64))) == 4
    state = timm.create_model("mine_net").state_dict()
    torch.save(state, tmp_path / "w.pth")
    loaded = create_encoder("mine_net", tmp_path / "w.pth").state_dict()
    assert all(torch.equal(loaded[f"net.{key}"], tensor) for key, tensor in state.items())
    del state["stage2.0.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(SegwrightError, match="do not fit the encoder 'mine_net'"):
        create_encoder("mine_net", tmp_path / "w.pth")


def test_the_head_of_the_page_refuses_what_cannot_work(tmp_path, monkeypatch, clean):
    monkeypatch.syspath_prepend(str(install(write_package(tmp_path / "package"), POINTS)))
    with pytest.raises(ConfigError, match=r"head\.width is 0"):
        HEADS["mine"].Config(width=0)


@pytest.mark.parametrize(
    ("module", "seen"),
    [("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"), ("x = 1", "has no Config")],
)
def test_a_package_that_cannot_work_is_named(tmp_path, monkeypatch, module, seen, clean):
    folder = write_package(tmp_path / "package")
    (folder / "mine.py").write_text(module)
    monkeypatch.syspath_prepend(str(install(folder, "[segwright.things]\nmine = mine\n")))
    catalogue = Catalogue("things", {"own": torch})
    assert catalogue["own"] is torch, "what the package cannot spoil is asked for first"
    with pytest.raises(SegwrightError, match=seen) as caught:
        sorted(catalogue)
    assert "mine" in str(caught.value)


def test_an_own_parts_name_stays_its_own(tmp_path, monkeypatch, clean):
    monkeypatch.syspath_prepend(str(install(write_package(tmp_path / "package"), "[segwright.heads]\naspp = mine\n")))
    assert sorted(HEADS)
    assert HEADS["aspp"].__name__ == "segwright.heads.aspp"


def contract(path: Path) -> str:
    """Runs the tests of all heads on `mine` with `path` before everything else; what pytest printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_heads.py", "-k", "mine"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def passed(printed: str) -> int:
    found = re.search(r"(\d+) passed", printed)
    return int(found[1]) if found else 0


@pytest.mark.slow
def test_pip_installs_the_package_of_the_page_and_the_tests_of_heads_take_it(tmp_path):
    if find_spec("hatchling") is None:
        absent("no hatchling, which builds the package: pip install 'segwright[test]'")
    folder = write_package(tmp_path / "package")
    (folder / "pyproject.toml").write_text(PROJECT)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(tmp_path / "site")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(folder)], check=True, capture_output=True)
    code = "from segwright.encoders import create_encoder; print(create_encoder('mine_net').channels)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "(16, 32, 64, 128)", done.stderr
    assert passed(contract(tmp_path / "site")) >= 15


@pytest.mark.slow
def test_in_a_checkout_one_file_and_one_line_are_enough(tmp_path):
    package = shutil.copytree(Path(segwright.__file__).parent, tmp_path / "src" / "segwright")
    (package / "heads" / "mine.py").write_text(HEAD)
    catalogue = package / "heads" / "__init__.py"
    text = catalogue.read_text().replace('        "aspp": aspp,\n', '        "aspp": aspp,\n' + LINE)
    catalogue.write_text(
        text.replace("import aspp, ", "import aspp, mine, ").replace("    aspp,\n", "    aspp,\n    mine,\n")
    )
    code = "import segwright; from segwright.heads import HEADS; print(segwright.__file__, 'mine' in HEADS)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(package / "__init__.py"), "True"], done.stderr
    assert passed(contract(tmp_path / "src")) >= 15

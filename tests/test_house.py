"""The house holds: imports only go down, fences stand, the package is light."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import segwright

SRC = Path(segwright.__file__).parent
FLOORS = {
    "errors": 0,
    "ahead": 1,
    "bilinear": 1,
    "files": 1,
    "large": 1,
    "launch": 1,
    "registry": 1,
    "checkpoint": 2,
    "config": 2,
    "png": 2,
    "bootstrap": 3,
    "checks": 3,
    "datasets": 3,
    "drawing": 3,
    "encoders": 3,
    "heads": 3,
    "hierarchy": 3,
    "images": 3,
    "losses": 3,
    "metrics": 3,
    "painting": 3,
    "progress": 3,
    "transforms": 3,
    "class_weights": 4,
    "data": 4,
    "engine": 4,
    "factories": 4,
    "lora": 4,
    "model": 4,
    "presets": 4,
    "pretrained": 4,
    "splitting": 4,
    "inference": 5,
    "training": 5,
    "verbs": 6,
    "cli": 7,
    "nnunet": 7,
}
SEEN_BY_ITS_FLOOR = {"datasets", "hierarchy", "images", "nnunet", "pretrained"}
"""Rooms that their own floor may look into: the data contract, trees of classes, the reading of image files, whole
models' weights; and the folder of trainers in `nnunet`, which the command line prints."""
FENCES = {
    "accelerate": {"engine"},
    "cv2": {"images", "png", "transforms"},
    "deepspeed": {"engine"},
    "matplotlib": {"drawing"},
    "nnunetv2": {"nnunet"},
    "omegaconf": {"config"},
    "onnx": {"verbs"},
    "onnxruntime": {"verbs"},
    "onnxscript": {"verbs"},
    "peft": {"lora"},
    "pycocotools": {"datasets", "painting"},
    "timm": {"encoders"},
    "typer": {"cli"},
}


def room_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    """Every module that a file imports, also inside functions, but not for type checkers only."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide from this test"
            assert node.module
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += names if node.module == "segwright" else [node.module]
    return found


FILES = sorted(path for path in SRC.rglob("*.py") if path != SRC / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_only_go_down(path: Path):
    own = room_of(path)
    assert own in FLOORS, f"{own} has no floor: give it one here and in docs/architecture.md"
    for module in imports_of(path):
        parts = module.split(".")
        if parts[0] != "segwright" or len(parts) == 1 or parts[1] in {own, "__version__"}:
            continue
        room = parts[1]
        same = FLOORS[room] == FLOORS[own] and room in SEEN_BY_ITS_FLOOR
        assert FLOORS[room] < FLOORS[own] or same, f"{own} (floor {FLOORS[own]}) imports {room} (floor {FLOORS[room]})"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_a_library_stays_behind_its_fence(path: Path):
    for module in imports_of(path):
        allowed = FENCES.get(module.split(".")[0])
        assert allowed is None or room_of(path) in allowed, f"{path.name} imports {module}"


def test_onnx_is_imported_where_it_is_exported_alone():
    users = {path.name for path in FILES for module in imports_of(path) if module.split(".")[0].startswith("onnx")}
    assert users == {"onnx_proof.py"}


def test_every_public_name_loads():
    for name in segwright.__all__:
        assert getattr(segwright, name) is not None
    assert set(segwright.__all__) == set(segwright._HOMES)


def test_help_and_import_load_no_torch():
    code = "import sys, segwright, segwright.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "segwright.cli", "--help"], capture_output=True, text=True
    )
    assert shown.returncode == 0
    assert "evaluate" in shown.stdout
    assert not [line for line in shown.stderr.splitlines() if line.split("|")[-1].strip() == "torch"]


@pytest.mark.slow
def test_help_starts_in_three_times_of_its_libraries():
    def best(*command: str) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        return min(times)

    assert best("-m", "segwright.cli", "--help") <= 3 * best("-c", "import typer, rich")


def test_results_name_no_folder_of_the_machine_that_made_them():
    results = [path for path in (Path(__file__).parents[1] / "benchmarks/results").rglob("*") if path.is_file()]
    assert results
    assert [path.name for path in results if re.search(r"/(tmp|home|root)/", path.read_text())] == []

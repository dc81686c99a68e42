"""What a run writes down beside its weights: log.csv, TensorBoard, curves, the parameters and the machine."""

import csv
import io
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.tensorboard import SummaryWriter

from segwright.drawing.curves import curves
from segwright.engine import Tracker
from segwright.files import write_text

log = logging.getLogger("segwright")

PACKAGES = (
    "segwright", "torch", "torchvision", "timm", "accelerate", "deepspeed", "numpy", "opencv-python-headless", "pillow",
    "peft", "pycocotools",
)  # fmt: skip

DRAW_EVERY_S = 30.0
"""Drawing the curves takes half a second, as long as many a small epoch."""


class Records:
    """The log of one run, kept current after every epoch."""

    def __init__(self, folder: Path, done: int, tracker: Tracker | None = None) -> None:
        """`done`: epochs that a run which goes on has behind it. For the main process only: it writes."""
        self.folder, self._tracker = folder, tracker
        self._rows: list[dict[str, Any]] = []
        self._drawn = -DRAW_EVERY_S
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)

    def restore(self, rows: list[dict[str, Any]]) -> None:
        """Makes the files anew from a resumed run's rows: a kill may have come between a checkpoint and its log."""
        self._rows = rows
        if rows:
            write_csv(self.folder / "log.csv", rows)

    def epoch(self, rows: list[dict[str, Any]], epochs: int, best: bool) -> None:
        """Writes the last row everywhere; the files are made anew from all rows, so a resumed run has none twice."""
        row = rows[-1]
        self._rows = rows
        write_csv(self.folder / "log.csv", rows)
        if time.monotonic() - self._drawn >= DRAW_EVERY_S:
            self._draw()
        values = {key: value for key, value in row.items() if key != "epoch"}
        for key, value in values.items():
            self._board.add_scalar(key, value, row["epoch"])
        if self._tracker:
            self._tracker.log(values, row["epoch"])
        log.info(
            "epoch %d/%d  train loss %.4f  valid loss %.4f  valid IoU %.4f%s  %.1f images/s",
            row["epoch"],
            epochs,
            row["train_loss"],
            row["valid_loss"],
            row["valid_iou"],
            " (best)" if best else "",
            row["images_per_s"],
        )

    def _draw(self) -> None:
        if self._rows:
            curves(self._rows, self.folder / "curves.png")
        self._drawn = time.monotonic()

    def close(self) -> None:
        """Draws the last curves, ends TensorBoard's file and the tracker's run."""
        self._draw()
        self._board.close()
        if self._tracker:
            self._tracker.finish()


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """One line a row under the first row's keys."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_params(folder: Path, params: dict[str, Any]) -> None:
    """`training_params.yaml` and `.json`, the same content."""
    write_text(folder / "training_params.yaml", yaml.safe_dump(params, sort_keys=False, allow_unicode=True))
    write_text(folder / "training_params.json", json.dumps(params, indent=2, ensure_ascii=False))


def environment() -> dict[str, Any]:
    """Versions, machine and state of the checkout, as far as they can be found."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "host": platform.node(),
        "git": _git_state(),
    }


def processor() -> str:
    """The processor by its name, and which of its vector instructions torch uses (AVX2, AVX512)."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit of the working folder and whether files differ from it; None outside a checkout."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "changed_files": len(dirty.stdout.splitlines())}


def outcome(rows: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What a run took: time, throughput of training alone, and the highest memory."""
    trained_s = sum(row["seconds"] for row in rows)
    images = sum(row["images_per_s"] * row["seconds"] for row in rows)
    taken = {
        "seconds": round(seconds, 1),
        "training_seconds": round(trained_s, 1),
        "images_per_s": round(images / trained_s, 2) if trained_s else None,
        "peak_memory_mb": round(peak_memory_mb()),
    }
    return taken | ({"peak_gpu_memory_mb": round(peak_gpu_memory_mb())} if torch.cuda.is_available() else {})


def peak_gpu_memory_mb() -> float:
    """Highest memory that this process has held on its GPU so far, in MiB."""
    return torch.cuda.max_memory_allocated() / 2**20


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested plain values by dotted names, as trackers take them; what is no number, word or truth value, as text."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{before}{key}.")
        else:
            out[f"{before}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return out


def peak_memory_mb() -> float:
    """Highest resident memory of this process so far, in MiB; 0 where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)

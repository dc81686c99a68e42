"""Kills a training run twenty times with SIGKILL and resumes it each time. Used by test_kill.py, in a process of its
own: it forks, which is safe only before torch has started its threads.

    python kill_driver.py CONFIG.json KILLS

Prints JSON: at which moments the kills fell, and what was found wrong.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import segwright
import segwright.verbs.train  # before the forks, or each child would import torch anew
from segwright import checkpoint

MOMENTS = ("writing last.pth", "writing best.pth", "just after a checkpoint", "in mid-epoch")


def start(config: dict, resume: bool) -> int:
    """The child's process id; the child trains and leaves with 0."""
    child = os.fork()
    if child == 0:
        try:
            segwright.train(config, resume=resume)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
    return child


def alive(child: int) -> bool:
    return os.waitpid(child, os.WNOHANG)[0] == 0


def wait_for(child: int, moment: str, folder: Path, rng: random.Random) -> str | None:
    """The moment when it has come, or `in mid-epoch` where a better epoch is long in coming; None if the run ended."""
    draft = {"writing last.pth": ".last.pth.*", "writing best.pth": ".best.pth.*"}.get(moment)
    last = folder / "last.pth"
    before = last.stat().st_mtime_ns if last.exists() else 0
    patience: float | None = None
    while alive(child):
        if draft and any(folder.glob(draft)):
            return moment
        saved = last.exists() and last.stat().st_mtime_ns != before
        if not draft and saved:
            time.sleep(0 if moment == "just after a checkpoint" else rng.uniform(0.02, 0.3))
            return moment
        if saved and patience is None:
            patience = time.monotonic() + 2
        if patience and time.monotonic() > patience:
            return "in mid-epoch"
        time.sleep(0.0002)
    return None


def main() -> None:
    config, kills = json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2])
    folder, rng = Path(config["run"]["output"]), random.Random(0)
    seen: dict[str, int] = dict.fromkeys(MOMENTS, 0)
    problems, drafts = [], 0
    for number in range(kills):
        moment = MOMENTS[number % len(MOMENTS)]
        child = start(config, resume=(folder / "config.yaml").exists())
        moment = wait_for(child, moment, folder, rng)
        if moment is None:
            problems.append(f"kill {number}: the run ended by itself")
            break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen[moment] += 1
        drafts += bool(list(folder.glob(".*.pth.*.tmp")))
        for name in ("best.pth", "last.pth"):
            try:
                if (folder / name).exists():
                    checkpoint.load(folder / name)
            except Exception as error:
                problems.append(f"kill {number}, {moment}: {name}: {error}")
    child = start(config, resume=True)
    status = os.waitpid(child, 0)[1]
    print(json.dumps({"seen": seen, "drafts": drafts, "problems": problems, "status": status}))


if __name__ == "__main__":
    main()

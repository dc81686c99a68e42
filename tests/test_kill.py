"""A run survives SIGKILL at any moment, and ends as if it had never been killed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import segwright
from runs import same, small, weights_of


@pytest.mark.slow
def test_twenty_kills_cost_nothing(painted, tmp_path):
    sections = {
        "train": {"epochs": 300, "early_stopping": 0, "freeze_epochs": 2, "save_every_steps": 2, "ema": 0.9},
        "optim": {"lr": 5e-3},
        "predict": {"threshold": 0.1},
    }
    whole = segwright.train(small(painted, tmp_path / "whole", **sections))
    config = small(painted, tmp_path / "killed", **sections)
    (tmp_path / "config.json").write_text(json.dumps(config))
    driver = Path(__file__).parent / "kill_driver.py"
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path / "config.json"), "20"], capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["problems"] == []
    assert sum(result["seen"].values()) == 20
    assert result["drafts"] >= 1, "no kill fell into the writing of a checkpoint"
    assert result["status"] == 0, done.stderr
    assert not list((tmp_path / "killed").glob(".*.tmp"))
    assert same(weights_of(whole.folder), weights_of(tmp_path / "killed"))
    assert same(weights_of(whole.folder, "best.pth"), weights_of(tmp_path / "killed", "best.pth"))

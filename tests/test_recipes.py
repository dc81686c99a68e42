"""Every shipped recipe loads, and the documents' own commands run."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from segwright import checkpoint
from segwright.verbs.settings import gather

REPO = Path(__file__).parents[1]
RECIPES = sorted((REPO / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(REPO)))
def test_every_recipe_loads(path):
    assert gather(path, {"data.root": "x"}).name


@pytest.mark.slow
def test_the_generated_page_is_current():
    code = "import sys; sys.path.insert(0, 'docs'); import generate; print(generate.page(), end='')"
    page = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO).stdout
    assert page == (REPO / "docs/configuration.md").read_text(), "run make docs"


def commands_of(readme: Path) -> list[list[str]]:
    """The python commands in a README's code blocks."""
    blocks = readme.read_text().split("```")[1::2]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("python ")]


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["segformer_b0", "mobilenet_v3_small"])
def test_the_documents_commands_run_on_real_photographs(encoder, real_data, tmp_path):
    """Section 7 of the crack system, from its README, on the real photographs; smaller and shorter by overrides."""
    data = str(real_data / "crack_coco")
    train, evaluate, infer = commands_of(REPO / "recipes/crack/README.md")[:3]
    shorter = ["--epochs", "2", "--freeze-epochs", "1", "input.size=[96,144]", "train.batch_size=8"]
    for command, more in ((train, shorter), (evaluate, []), (infer, [])):
        words = [word.replace("DATA", data).replace("segformer_b0", encoder) for word in command[1:]]
        words = [str(REPO / "recipes/crack" / word) if word.endswith((".py", ".yaml")) else word for word in words]
        done = subprocess.run([sys.executable, *words, *more], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "outputs/metrics_test.json").read_text())
    assert metrics["num_images"] == 24
    assert metrics["threshold"] == 0.40
    assert len(list((tmp_path / "outputs/infer_segformer").glob("*_mask.png"))) == 24
    assert len(list((tmp_path / "outputs/infer_segformer").glob("*_overlay.png"))) == 24
    log = (tmp_path / "runs/segformer_lite/train.log").read_text()
    assert "encoder frozen" in log
    assert "encoder unfrozen" in log
    groups = checkpoint.load(tmp_path / "runs/segformer_lite/last.pth")["optimizer"]["param_groups"]
    assert [(group["name"], group["lr"]) for group in groups] == [("head", 1e-3), ("encoder", 1e-4)]

"""What a loss over a tree of classes changes, on CamVid with its hierarchy.json: the same network, budget and seeds.

    python benchmarks/trees.py --data DATA/camvid [--steps 360] [--seeds 3] [--first-seed 0] [--losses LOSS ...]
                               [--shares SHARE ...]

The losses: cross-entropy over the eleven classes; the tree loss; the tree loss with tree-triplet; a cross-entropy a
level without what holds the levels together; the tree loss with a smaller share of that. Each from random weights, with
all training images, with every fourth and with sixteen, in as many steps. `sixteen + groups` is the same sixteen and
all the others with coarse labels, every pixel the name of its group (of a group of one leaf that is the leaf), each
kind half of an epoch. Cross-entropy over the classes can use of the others no more than these leaves, and is compared
there as well as on the sixteen alone. Images are halved for the network and scored on `test` at their own size, with
the last weights. Every run that is done is kept in `results/trees.json` (`trees_STEPS.json` of another number of
steps), so a second call goes on; a table of the same name is made of what is there. `--work` says where the runs lie
meanwhile.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from keeping import go_on
from PIL import Image

import segwright
from segwright.config import merge

SIZE, CROP_PX, BATCH = (180, 240), 128, 8
RATE = 1e-3
STEPS = 360
VALID = 8
"""Validation images: a run wants some, and no choice is made on them here."""
LOSSES: dict[str, dict[str, Any]] = {
    "ce": {"name": "ce"},
    "tree": {"name": "tree"},
    "tree + triplet": {"name": "tree", "triplet_weight": 1.0},
    "ce a level": {"name": "tree", "tree_weight": 0.0},
    "tree, weight 1": {"name": "tree", "tree_weight": 1.0},
}
SHARES = {"all": 1, "a quarter": 4, "sixteen": 24, "sixteen + groups": 24}
"""Name -> one training image of how many."""
GROUPS = "sixteen + groups"
SCORES = ("fine mIoU", "coarse mIoU", "coherence", "hierarchical error")
RESULTS = Path(__file__).parent / "results"


def chosen(data: Path, folder: Path, every: int, seed: int) -> Path:
    """A folder of links: every so manieth training image from the seed's on, a few for validation, all of test."""
    for split, step, first, most in (("train", every, seed % every, None), ("val", 1, 0, VALID), ("test", 1, 0, None)):
        images = sorted((data / split / "images").iterdir())[first::step][:most]
        for image in images:
            for kind, source in (("images", image), ("masks", data / split / "masks" / f"{image.stem}.png")):
                link(folder / split / kind / source.name, source)
    return folder


def add_groups(data: Path, folder: Path, table: np.ndarray) -> None:
    """To a folder that `chosen` made: the other training images with coarse labels, `table` (256,) by leaf, and the
    chosen ones so often that they are as many. What is there already stays."""
    images, masks = folder / "train/images", folder / "train/masks"
    everything = sorted((data / "train/images").iterdir())
    own = [path for path in everything if (masks / f"{path.stem}.png").is_symlink()]
    others = [path for path in everything if path not in own]
    for path in others:
        mask = np.asarray(Image.open(data / "train/masks" / f"{path.stem}.png"))
        Image.fromarray(table[mask]).save(masks / f"{path.stem}.png")
        link(images / path.name, path)
    for number in range(1, len(others) // len(own)):
        for path in own:
            link(images / f"again{number}_{path.name}", path)
            link(masks / f"again{number}_{path.stem}.png", data / "train/masks" / f"{path.stem}.png")


def link(path: Path, to: Path) -> None:
    """A link, if it is not there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.symlink_to(to.resolve())


def config(
    root: Path, tree: dict[str, Any], classes: list[str], loss: str, seed: int, steps: int, work: Path
) -> dict[str, Any]:
    """A run of one epoch that holds all its steps: the learning rate's one cycle, and no choice among epochs."""
    images = len(list((root / "train/images").iterdir()))
    return {
        "data": {"name": "folder", "root": str(root), "classes": classes},
        "hierarchy": {"classes": tree},
        "encoder": {"name": "mobilenet_v3_small", "pretrained": False},
        "input": {"size": list(SIZE), "preload": "ram", "cache": str(work / "cache"), "workers": 0},
        "augment": {"crop": CROP_PX, "vflip": 0.0},
        "loss": LOSSES[loss],
        "optim": {"lr": RATE, "lr_encoder": RATE},
        "schedule": {"name": "onecycle"},
        "train": {"epochs": 1, "passes": round(steps / (images // BATCH)), "batch_size": BATCH, "amp": False,
                  "seed": seed, "early_stopping": 0},
        "run": {"output": str(work / "run"), "overwrite": True, "check": False},
    }  # fmt: skip


def one(data: Path, loss: str, share: str, seed: int, steps: int, work: Path) -> dict[str, Any]:
    """Trains and scores once."""
    tree = json.loads((data / "hierarchy.json").read_text())
    classes = [entry["name"] for entry in json.loads((data / "classes.json").read_text())["classes"]]
    root = chosen(data, work / f"{share.replace(' ', '_')}_{seed % SHARES[share]}", SHARES[share], seed)
    coarse = {f"some {group}": group for group, leaves in tree.items() if share == GROUPS and len(leaves) > 1}
    if coarse:
        add_groups(data, root, coarse_table(tree, classes, list(coarse.values())))
    labels = {"classes": {"ignore": list(coarse)}} if loss == "ce" else {"hierarchy": {"coarse_labels": coarse}}
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    run = segwright.train(merge(config(root, tree, [*classes, *coarse], loss, seed, steps, work), labels))
    metrics = segwright.evaluate(run.folder / "last.pth", split="test", output=work / "scores")
    values = (
        metrics["iou"],
        metrics["per_level"]["coarse"]["iou"],
        metrics["coherence"],
        metrics["hierarchical_error"],
    )
    return {
        "loss": loss, "share": share, "seed": seed, **dict(zip(SCORES, values, strict=True)),
        "per class": {name: row["iou"] for name, row in metrics["per_class"].items()},
        "seconds": round(time.perf_counter() - start_s), "cpu_seconds": round(time.process_time() - start_cpu_s),
    }  # fmt: skip


def coarse_table(tree: dict[str, list[str]], classes: list[str], coarse: list[str]) -> np.ndarray:
    """(256,) uint8: a leaf's id -> its group's label, which comes behind the leaves, or itself where it has none."""
    out = np.arange(256, dtype=np.uint8)
    for number, group in enumerate(coarse, len(classes)):
        out[[classes.index(leaf) for leaf in tree[group]]] = number
    return out


def table(rows: list[dict[str, Any]], steps: int) -> str:
    """Mean (lowest to highest seed) of every score, and over seeds the mean difference to the cross-entropy."""
    lines = [f"| training images | loss | seeds | {' | '.join(SCORES)} |", f"|--|--|--|{'--|' * len(SCORES)}"]
    for share in SHARES:
        for loss in LOSSES:
            own = [row for row in rows if (row["loss"], row["share"]) == (loss, share)]
            if own:
                flat = [row for row in rows if (row["loss"], row["share"]) == ("ce", share.removesuffix(" + groups"))]
                cells = [cell(own, flat, score) for score in SCORES]
                lines.append(f"| {share} | {loss} | {len(own)} | {' | '.join(cells)} |")
    return (
        f"CamVid, test at 360 x 480; mobilenet_v3_small with the lite head from random weights, {steps} steps of "
        f"{BATCH} crops of {CROP_PX} x {CROP_PX} px from images of {SIZE[0]} x {SIZE[1]}; mean (lowest to highest "
        "seed), then the mean difference to ce with the same seed; beside groups, to that on the sixteen alone.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def cell(own: list[dict[str, Any]], flat: list[dict[str, Any]], score: str) -> str:
    values = [row[score] for row in own]
    text = f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
    against = {row["seed"]: row[score] for row in flat}
    pairs = [row[score] - against[row["seed"]] for row in own if row["seed"] in against]
    return text if own == flat or not pairs else f"{text} {statistics.mean(pairs):+.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--losses", nargs="+", choices=list(LOSSES), default=list(LOSSES), metavar="LOSS")
    parser.add_argument("--shares", nargs="+", choices=list(SHARES), default=list(SHARES)[:3], metavar="SHARE")
    parser.add_argument("--work", type=Path, default=Path("trees"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    go_on(
        given.results / ("trees.json" if given.steps == STEPS else f"trees_{given.steps}.json"),
        {"steps": given.steps},
        ("loss", "share", "seed"),
        [(loss, share, seed) for seed in seeds for share in given.shares for loss in given.losses],
        lambda *key: one(given.data, *key, given.steps, given.work),
        lambda rows: table(rows, given.steps),
    )


if __name__ == "__main__":
    main()

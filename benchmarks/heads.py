"""What the two lighter SegFormer heads gain in speed, and cost in accuracy on CamVid: same encoders, budget and seeds.

    python benchmarks/heads.py --speed [--encoders NAME ...]
    python benchmarks/heads.py --data DATA/camvid [--seeds 2] [--encoders NAME ...] [--work FOLDER]

Each from random weights, 6 epochs on images of 180 x 240, cross-entropy, in bfloat16 where the processor has it, scored
on `test` at the original size with the last weights. Every run that is done is kept in `results/heads.json`, so a
second call goes on; `results/heads.md` is made of what is there.

The speed is that of the three heads and of the published form (segmentation_models.pytorch's Segformer, width 256) in
turns in one process, fp32, the allocator keeping memory, at 512 x 512 with 19 classes: `results/heads_speed.md`.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from keeping import go_on

import segwright
from segwright.training.records import environment
from segwright.verbs.peers import OURS, Design, build
from segwright.verbs.turns import take_turns
from segwright.verbs.workload import Load, prepare, settle

SIZE, EPOCHS, BATCH, RATE = (180, 240), 6, 8, 1e-3
HEADS = ("segformer", "ultrafast_segformer", "extremely_fast_segformer")
ENCODERS = ("mit_b0", "resnet18")
WIDTH = 256
PUBLISHED = "published form of segformer"
ROUNDS = 9
CPU = torch.device("cpu")
RESULTS = Path(__file__).parent / "results"


def config(data: Path, encoder: str, head: str, seed: int, work: Path) -> dict[str, Any]:
    """Everything but the encoder, the head and the seed is the same."""
    return {
        "data": {"root": str(data)},
        "encoder": {"name": encoder, "pretrained": False},
        "head": {"name": head},
        "input": {"size": list(SIZE), "preload": "ram", "cache": str(work / "cache"), "workers": 0},
        "augment": {"vflip": 0.0},
        "loss": {"name": "ce"},
        "optim": {"lr": RATE, "lr_encoder": RATE},
        "schedule": {"name": "onecycle"},
        "train": {"epochs": EPOCHS, "batch_size": BATCH, "seed": seed, "early_stopping": 0},
        "run": {"output": str(work / "run"), "overwrite": True, "check": False},
    }


def one(data: Path, encoder: str, head: str, seed: int, work: Path) -> dict[str, Any]:
    """Trains and scores once."""
    run = segwright.train(config(data, encoder, head, seed, work))
    metrics = segwright.evaluate(run.folder / "last.pth", split="test", output=work / "scores")
    return {
        "encoder": encoder, "head": head, "seed": seed, "iou": metrics["iou"],
        "per class": {name: row["iou"] for name, row in metrics["per_class"].items()},
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Mean (every seed) of the mIoU, and the mean difference to the full head with the same seed."""
    lines = ["| encoder | head | mIoU: mean (seeds) | to the full head |", "| --- | --- | --- | --- |"]
    for encoder in dict.fromkeys(row["encoder"] for row in rows):
        full = {row["seed"]: row["iou"] for row in rows if (row["encoder"], row["head"]) == (encoder, HEADS[0])}
        for head in HEADS:
            own = {row["seed"]: row["iou"] for row in rows if (row["encoder"], row["head"]) == (encoder, head)}
            pairs = [own[seed] - full[seed] for seed in own if seed in full]
            if own:
                seeds = ", ".join(f"{value:.3f}" for _, value in sorted(own.items()))
                apart = f"{statistics.mean(pairs):+.3f}" if pairs and head != HEADS[0] else ""
                lines.append(f"| {encoder} | {head} | {statistics.mean(own.values()):.3f} ({seeds}) | {apart} |")
    return (
        f"CamVid, test at 360 x 480; from random weights, {EPOCHS} epochs in batches of {BATCH} images of "
        f"{SIZE[0]} x {SIZE[1]}, last weights.\n\n" + "\n".join(lines) + "\n"
    )


def speed(encoder: str, mode: str) -> dict[str, float]:
    """Images/s of every head and of the published form, from the median of interleaved rounds."""
    load = Load(Design(encoder, HEADS[0], WIDTH), 512, 1 if mode == "infer" else 2, mode, device="cpu")
    settle(load)
    peer = smp.Segformer(encoder, encoder_weights=None, classes=19, decoder_segmentation_channels=WIDTH)
    steps = {PUBLISHED: prepare(peer, load)}
    for head in HEADS:
        model = build(OURS, replace(load.design, head=head, width=WIDTH if head == HEADS[0] else None))
        assert model is not None
        steps[head] = prepare(model, load)
    seconds = take_turns(steps, ROUNDS, CPU)
    return {name: load.batch / statistics.median(taken) for name, taken in seconds.items()}


def speed_table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Of each encoder, mode and head images/s, and how many times the full head's that is."""
    lines = ["| encoder | head | inference, batch 1 | training step, batch 2 |", "| --- | --- | --- | --- |"]
    for encoder, modes in found.items():
        for name in modes["infer"]:
            cells = (f"{rates[name]:.2f} ({rates[name] / rates[HEADS[0]]:.2f})" for rates in modes.values())
            lines.append(f"| {encoder} | {name} | {' | '.join(cells)} |")
    return (
        f"images/s (and beside the full head), 512 x 512, 19 classes, fp32, {torch.get_num_threads()} threads, median "
        f"of {ROUNDS} interleaved rounds\n\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS))
    parser.add_argument("--work", type=Path, default=Path("heads"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.speed:
        found = {encoder: {mode: speed(encoder, mode) for mode in ("infer", "train")} for encoder in given.encoders}
        kept = {"environment": environment(), "images_per_s": found}
        (given.results / "heads_speed.json").write_text(json.dumps(kept, indent=1))
        (given.results / "heads_speed.md").write_text(speed_table(found))
        return
    if given.data is None:
        parser.error("--data is missing: the folder of CamVid, or --speed, which needs none")
    go_on(
        given.results / "heads.json",
        {"size": list(SIZE), "epochs": EPOCHS, "batch": BATCH, "rate": RATE},
        ("encoder", "head", "seed"),
        [(encoder, head, seed) for seed in range(given.seeds) for encoder in given.encoders for head in HEADS],
        lambda *key: one(given.data, *key, given.work),
        table,
    )


if __name__ == "__main__":
    main()

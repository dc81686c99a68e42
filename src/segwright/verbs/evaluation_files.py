"""What an evaluation writes beside its numbers, and where."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from segwright.data import EvaluationSet
from segwright.datasets.base import Source
from segwright.errors import SegwrightError
from segwright.files import write_text
from segwright.verbs import details
from segwright.verbs.loading import Loaded
from segwright.verbs.pictures import draw_extremes
from segwright.verbs.run_files import BEST, CONFIG
from segwright.verbs.scoring import Tally

log = logging.getLogger("segwright")


def write_details(
    folder: Path, tally: Tally, loaded: Loaded, source: Source, split: str, for_page: dict[str, Any] | None
) -> None:
    """What stands beside the numbers; the page where `for_page` gives them."""
    images, rows = source.splits[split], tally.counts.rows
    details.write_counts(
        folder / f"per_image_{split}.csv", rows, images, loaded.settings.data.config.root, loaded.classes
    )
    assert tally.counts.confusion is not None
    details.write_confusion(folder / f"confusion_{split}.csv", tally.counts.confusion, loaded.classes)
    if for_page is not None:
        drawn = draw_extremes(loaded.predictor, EvaluationSet(images, loaded.settings.input.pixels()), source, rows)
        figure = details.draw_confusion(folder / f"confusion_{split}.png", tally.counts.confusion, loaded.classes)
        details.write_page(folder / f"evaluation_{split}.html", for_page, source, figure, *drawn)


def keep_in_run(written: Path, weights: Path, loaded: Loaded, split: str) -> None:
    """Copies the numbers of a run's own data beside its best.pth, where `compare` finds them: the next evaluation into
    `written` takes their place there."""
    config, home = weights.parent / CONFIG, weights.parent / "evaluation"
    if weights.name != BEST or not config.is_file() or home.resolve() == written.resolve():
        return
    try:
        own, now = yaml.safe_load(config.read_text()), loaded.settings.dump()
    except (OSError, UnicodeDecodeError, yaml.YAMLError):  # another's config.yaml
        return
    if not isinstance(own, dict) or any(own.get(section) != now[section] for section in ("data", "classes", "split")):
        return
    try:
        for name in (f"metrics_{split}.json", f"per_image_{split}.csv", f"confusion_{split}.csv"):
            write_text(home / name, (written / name).read_text())
    except (OSError, SegwrightError) as error:
        log.info("the numbers could not be kept in %s too: %s", home, error)


def evaluated_with(loaded: Loaded) -> dict[str, Any]:
    """What decides beside the weights which mask comes out: `section.key` -> value, as overrides take them."""
    used, values = asdict(loaded.predictor.config), loaded.settings.dump()
    if len(loaded.classes) > 1:
        del used["threshold"]
    tree = {"hierarchy.decode": values["hierarchy"]["decode"]} if loaded.predictor.tree else {}
    return {f"predict.{key}": value for key, value in used.items()} | {"input.size": values["input"]["size"]} | tree

"""Whether data belong to the model that is to be scored on them: the same classes, and images it has not learnt."""

import logging
from pathlib import Path

from segwright.datasets.base import Source
from segwright.datasets.mapping import in_order
from segwright.errors import WeightsError
from segwright.splitting import Picked, seen_from
from segwright.splitting.groups import image_names
from segwright.verbs.loading import Loaded

log = logging.getLogger("segwright")


def with_classes_of(loaded: Loaded, source: Source, weights: str | Path) -> Source:
    """The data with their classes in the order that the model has them in.

    Raises:
        WeightsError: another number of classes; or other names, of which one stands at another place in the model.
    """
    ours, theirs = list(source.classes), list(loaded.classes)
    if len(ours) != len(theirs):
        raise WeightsError(
            f"{weights} knows {len(theirs)} classes ({', '.join(theirs)}), the data have "
            f"{len(ours)} ({', '.join(ours)}). Evaluate with the data the model was made for."
        )
    if sorted(ours) == sorted(theirs):
        if ours != theirs:
            log.info(
                "the data's classes are scored by name: %s learnt them in the order %s", weights, ", ".join(theirs)
            )
        return in_order(source, theirs)
    moved = [name for name in theirs if name in ours and ours.index(name) != theirs.index(name)]
    if moved:
        raise WeightsError(
            f"{weights} knows the classes {', '.join(theirs)}, and the data have {', '.join(ours)}: '{moved[0]}' is "
            f"number {theirs.index(moved[0])} there and number {ours.index(moved[0])} here, and other names differ, so "
            "neither names nor numbers say what belongs together. Rename the data's classes with classes.rename."
        )
    log.warning(
        "%s learnt the classes %s, but the data call them %s; they are compared by their order. If that is not "
        "meant, set data.classes, or classes.rename",
        weights,
        ", ".join(theirs),
        ", ".join(ours),
    )
    return source


def warn_of_seen(source: Source, loaded: Loaded, split: str) -> None:
    """Says how many images of a split the run trained on, where another division than the run's puts them there."""
    root = loaded.settings.data.config.root
    known = seen_from(source, root, {"train": loaded.trained_on})
    if loaded.trained_on and known is None and any(isinstance(one, Picked) for one in source.splits.values()):
        log.warning(
            "The run divided its images itself, and none of them is in these data under its name, so they were divided "
            "anew. If they are the same images, '%s' holds some that the model learnt; give it images it has not seen.",
            split,
        )
    if known is None or split == "train" or split not in source.splits:
        return
    names = image_names(source.splits[split], root)
    if learnt := len({*names} & {*known["train"]}):
        log.warning(
            "The run trained on %d of the %d images of '%s', so their scores are flattered. Leave the section split as "
            "the run had it.",
            learnt,
            len(names),
            split,
        )

"""What a tree of classes changes in a run: the model's channels, how predictions are read, and pictures of both."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from segwright.config.lines import with_lines
from segwright.datasets.base import IGNORE
from segwright.drawing.classes import class_colours, panels
from segwright.drawing.tree import tree_png
from segwright.errors import ConfigError
from segwright.files import write_bytes, write_text
from segwright.hierarchy import Hierarchy, tree_of
from segwright.inference import TreeDecoder
from segwright.verbs.settings import LOSS_OF_TREE, Settings

TEXT, PICTURE = "hierarchy.txt", "hierarchy.png"
"""The tree in a run's folder."""


def tree_for_loss(settings: Settings, classes: Sequence[str]) -> Hierarchy | None:
    """The tree whose nodes the model predicts; None where its loss is for the classes alone. Raises `ConfigError`."""
    return tree_of(settings.hierarchy, classes) if settings.loss.name == LOSS_OF_TREE else None


def channels(settings: Settings, classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the model's channels: the classes, or with a loss over a tree its nodes. Raises `ConfigError`."""
    tree = tree_for_loss(settings, classes)
    return tuple("/".join(path) for path in tree.paths) if tree else tuple(classes)


def decoder(settings: Settings, classes: Sequence[str]) -> TreeDecoder | None:
    """How a tree's predictions are read; None without one. A model of the leaves alone has levels too.

    Raises:
        ConfigError: the tree cannot be used with these classes.
    """
    tree = tree_of(settings.hierarchy, classes)
    return TreeDecoder(tree, settings.hierarchy.decode) if tree else None


def write_tree(
    folder: Path, settings: Settings, classes: Sequence[str], colours: Sequence[Sequence[int]] | None
) -> None:
    """`hierarchy.txt` and `hierarchy.png`, where the classes form a tree; the leaves in the classes' colours."""
    tree = tree_of(settings.hierarchy, classes)
    if tree is None:
        return
    write_text(folder / TEXT, f"{tree}\n")
    write_bytes(folder / PICTURE, tree_png(tree, class_colours(classes, colours)))


@contextmanager
def located(config: object) -> Iterator[None]:
    """Within it, a `ConfigError` tells the lines of the file `config`, if it is one, that the keys in it stand on."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(with_lines(str(error), config) if isinstance(config, str | Path) else str(error)) from None


def places_of(tree: Hierarchy) -> np.ndarray:
    """(D, 256) uint8: a label, 0 to L - 1, -> its place on each level; 255, which is ignored, where it leaves several
    open, and for all other values."""
    places = np.full((tree.depth, 256), IGNORE, np.uint8)
    for level, of_labels in zip(places, tree.label_levels, strict=True):
        for label, (first, *others) in enumerate(of_labels):
            level[label] = IGNORE if others else first
    return places


def level_panels(
    image: np.ndarray,
    truth: np.ndarray,
    levels: np.ndarray,
    tree: Hierarchy,
    classes: Sequence[str],
    colours: Sequence[Sequence[int]] | None,
) -> np.ndarray:
    """Photograph, truth and prediction side by side for each level, the finest at the top: uint8 RGB.

    image (H, W, 3) uint8, truth (H, W) labels, levels (D, H, W) what is predicted on each, as places.
    """
    rows = []
    for level in reversed(range(tree.depth)):
        finest = level == tree.depth - 1
        names = classes if finest else tree.names(level)
        own = class_colours(names, colours if finest else None)
        rows.append(panels(image, places_of(tree)[level][truth], levels[level], names, own))
    return np.concatenate(rows)

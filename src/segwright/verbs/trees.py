"""What a tree of classes changes in a run: the model's channels, and how predictions are read."""

from collections.abc import Sequence

from segwright.hierarchy import Hierarchy, tree_of
from segwright.inference import TreeDecoder
from segwright.verbs.settings import LOSS_OF_TREE, Settings


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

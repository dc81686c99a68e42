"""Classes that form a tree: how people write it, what it knows, how predictions on it are decoded and scored."""

from segwright.hierarchy.config import Config, tree_of
from segwright.hierarchy.reading import read
from segwright.hierarchy.tree import Hierarchy

__all__ = ["Config", "Hierarchy", "read", "tree_of"]

"""Weights and folders that hold an encoder and its head together: whole SegFormers."""

from segwright.pretrained.folder import read_folder, write_folder
from segwright.pretrained.whole import WIDTHS, Whole, choose_weights

__all__ = ["WIDTHS", "Whole", "choose_weights", "read_folder", "write_folder"]

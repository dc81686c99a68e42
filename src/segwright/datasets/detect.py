"""Which reader a folder is for, by what lies in it."""

from pathlib import Path

from segwright.datasets import READERS

LAST = "folder"
"""Taken when no other reader knows the folder: it takes any images with masks, and its errors say what it sought."""


def detect(root: str | Path) -> str:
    """Name of the reader whose `recognises(folder) -> bool` says yes; readers are asked in the catalogue's order."""
    folder = Path(root)
    for name, reader in READERS.items():
        recognises = getattr(reader, "recognises", None)
        if name != LAST and recognises is not None and folder.is_dir() and recognises(folder):
            return name
    return LAST

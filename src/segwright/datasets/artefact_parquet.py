"""ARTeFACT's parquet files, unpacked into image files once.

An image in the middle of a parquet file can only be reached by reading hundreds of megabytes around it, so training
would starve. The bytes in the files are those of PNG or JPEG files; they are written as they are. Needs pyarrow.
"""

import csv
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segwright.errors import DataError, MissingPackageError, SegwrightError

log = logging.getLogger("segwright")

PICTURES = ("image", "annotation", "annotation_rgb")
NEEDED = ("id", "image", "annotation")
BATCH = 8
"""Rows held in memory at a time; a row can have a hundred megabytes."""


def files(root: Path) -> list[Path]:
    """The parquet files in a folder, or in its data/."""
    found = sorted(root.glob("*.parquet")) if root.is_dir() else []
    return found or sorted((root / "data").glob("*.parquet"))


def unpack(sources: Sequence[Path], target: Path) -> None:
    """Writes image/, annotation/, annotation_rgb/ and metadata.csv into `target`, all or nothing.

    Raises:
        MissingPackageError: pyarrow is not installed.
        DataError: a file that is no parquet file, or has other columns.
        SegwrightError: `target` cannot be written.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        draft.mkdir(parents=True)
        _write_all(sources, draft)
        os.replace(draft, target)
    except OSError as error:
        if not (target / "image").is_dir():  # else another process has done it meanwhile
            raise SegwrightError(
                f"the parquet files could not be unpacked into {target} ({error}). Free some space, or name another "
                "folder with data.unpacked."
            ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_all(sources: Sequence[Path], draft: Path) -> None:
    rows: list[dict[str, str]] = []
    used: set[str] = set()
    for number, source in enumerate(sources, start=1):
        log.info("unpacking %s, file %d of %d", source.name, number, len(sources))
        for row in _rows(source):
            name = _unique(str(row["id"]), used)
            for kind in PICTURES:
                if kind in row:
                    _write(draft / kind / name, row[kind], source)
            rows.append({**{key: str(value) for key, value in row.items() if key not in PICTURES}, "id": name})
    with (draft / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _rows(source: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingPackageError("pyarrow", "reading ARTeFACT's parquet files", "parquet") from None
    try:
        table = parquet.ParquetFile(source)
    except pyarrow.ArrowException as error:
        raise DataError(f"{source} is no parquet file that can be read ({error}). Download it again.") from None
    lacking = [name for name in NEEDED if name not in table.schema_arrow.names]
    if lacking:
        raise DataError(
            f"{source} has no column {', '.join(lacking)} (it has {', '.join(table.schema_arrow.names)}), so it is no "
            "file of ARTeFACT. Take it out of the folder."
        )
    for batch in table.iter_batches(batch_size=BATCH):
        yield from batch.to_pylist()


def _unique(wanted: str, used: set[str]) -> str:
    """A file's name for an id; several rows may share one."""
    plain = re.sub(r"[^\w-]+", "_", Path(wanted).stem) or "row"
    name, count = plain, 2
    while name in used:
        name, count = f"{plain}_{count}", count + 1
    used.add(name)
    return name


def _write(path: Path, value: Any, source: Path) -> None:
    """`value`: {"bytes": of an image file, ...}, as the datasets library stores pictures."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise DataError(f"{source} holds no picture for {path.parent.name}/{path.name}. Download it again.")
    path.parent.mkdir(exist_ok=True)
    path.with_name(path.name + (".jpg" if data.startswith(b"\xff\xd8") else ".png")).write_bytes(data)

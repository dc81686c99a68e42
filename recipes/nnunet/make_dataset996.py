#!/usr/bin/env python
"""Paints a small data set and writes it as nnU-Net's raw Dataset996_Cracks, to try the whole path in minutes.

python make_dataset996.py $nnUNet_raw
"""

import argparse
import tempfile
from pathlib import Path

from segwright.painting import write_dataset
from segwright.verbs.convert import convert

NAME = "Dataset996_Cracks"


def main() -> None:
    parser = argparse.ArgumentParser(description="Paint nnU-Net's raw Dataset996_Cracks.")
    parser.add_argument("raw", type=Path, help="the folder nnUNet_raw")
    parser.add_argument("--train", type=int, default=12, help="labelled images (default: %(default)s)")
    parser.add_argument(
        "--valid", type=int, default=3, help="how many of them fold 0 validates with (default: %(default)s)"
    )
    parser.add_argument("--test", type=int, default=3, help="images in imagesTs (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), help="height and width (default: 96 128)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        painted = write_dataset(
            Path(folder) / "painted",
            train=options.train - options.valid,
            valid=options.valid,
            test=options.test,
            size=tuple(options.size),
        )
        done = convert(painted, options.raw / NAME, "nnunet")
    print(f"{done.images} images in {done.folder}")


if __name__ == "__main__":
    main()

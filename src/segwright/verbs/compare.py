"""`segwright compare`: which of several finished runs is better, and whether the difference is real."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segwright.errors import DataError
from segwright.verbs.compare_report import write_all
from segwright.verbs.comparison import Comparison, common_split, compared, read_run, run_names, same_ground


def compare(
    runs: Sequence[str | Path], *, split: str | None = None, output: str | Path = "comparison", pictures: bool = True
) -> Comparison:
    """Reads the runs' evaluations and writes `comparison.md`, `.csv`, `_per_class.csv` and `.html` into `output`.

    split: `test` or `valid`; none: `test` if all runs have been evaluated on it, else `valid`.

    Raises:
        DataError: fewer than two runs, one that is named twice or was not evaluated, or runs with other images, masks
            or classes.
    """
    folders = [Path(run) for run in runs]
    if len(folders) < 2:
        raise DataError(f"there is {len(folders)} run to compare; name two or more.")
    times = Counter(folder.resolve() for folder in folders)
    twice = [str(folder) for folder in folders if times[folder.resolve()] > 1]
    if twice:
        raise DataError(f"a run is named twice ({', '.join(twice)}); it cannot differ from itself. Name each run once.")
    split = split or common_split(folders)
    names = run_names(folders)
    read = [read_run(folder, name, split) for folder, name in zip(folders, names, strict=True)]
    same_ground(read)
    result = compared(read, split, Path(output))
    write_all(result, pictures)
    return result

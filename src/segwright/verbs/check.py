"""`segwright check`: what is wrong with the data, before anything is computed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segwright.checks import check_source, summary
from segwright.datasets import READERS
from segwright.datasets.base import Finding
from segwright.progress import bar
from segwright.verbs.settings import gather


@dataclass(frozen=True)
class Report:
    """What a check found."""

    findings: list[Finding]
    summary: dict[str, Any]

    @property
    def errors(self) -> int:
        """How many findings make training pointless."""
        return sum(finding.level == "error" for finding in self.findings)

    def json(self) -> str:
        """The whole report as JSON."""
        return json.dumps({"findings": [asdict(f) for f in self.findings], "summary": self.summary}, indent=2)


def check(
    root: str | Path | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    overrides: Sequence[str] = (),
    quick: bool = False,
) -> Report:
    """Looks at every image and mask of a data set; `quick` reads no pixels.

    Raises:
        DataError: the data cannot be read at all.
        ConfigError: neither `root` nor a config names them.
    """
    choice = gather(config, {"data.root": root and str(root)}, overrides).data
    source = READERS[choice.name].scan(choice.config)
    with bar("check", 1) as progress:
        findings = check_source(source, quick=quick, progress=progress.set)
    return Report(findings, {} if quick or not source.splits else summary(source))

"""`segwright check`: what is wrong with the data, before anything is computed."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from segwright.checks import Checked, check_quick, judge, look
from segwright.class_weights import weigh
from segwright.datasets import folder_write
from segwright.datasets.base import Finding, Source, by_level
from segwright.errors import ConfigError, DataError, SegwrightError
from segwright.hierarchy import tree_of
from segwright.progress import bar
from segwright.verbs.check_page import check_page
from segwright.verbs.fix import Fix, write_fixed
from segwright.verbs.settings import Settings, gather
from segwright.verbs.source import read_source, refuse_mixed_batches
from segwright.verbs.trees import located

log = logging.getLogger("segwright")


@dataclass(frozen=True)
class Report:
    """What a check found."""

    findings: list[Finding]
    summary: dict[str, Any]
    fixes: list[Fix] = field(default_factory=list)
    """What was done in the corrected copy."""
    left: list[Finding] | None = None
    """Errors that a check of the corrected copy finds; None where there is none."""

    @property
    def errors(self) -> int:
        """How many findings make training pointless."""
        return sum(finding.level == "error" for finding in self.findings)

    def json(self) -> str:
        """The whole report as JSON: `{"findings": [...], "summary": {...}, "fixes": [...]}`, of a copy also `left`."""
        parts = {
            "findings": [asdict(finding) for finding in self.findings],
            "summary": self.summary,
            "fixes": [asdict(fix) for fix in self.fixes],
        }
        if self.left is not None:
            parts["left"] = [asdict(finding) for finding in self.left]
        return json.dumps(parts, indent=2)


def check(
    root: str | Path | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    overrides: Sequence[str] = (),
    quick: bool = False,
    html: str | Path | None = None,
    fix: str | Path | None = None,
) -> Report:
    """Looks at every image and mask of a data set.

    quick: headers, ends of files and equal files only. html: a page to write, with pictures. fix: a folder that does
    not exist yet, for a copy in the `folder` layout in which what can be mended safely is mended; `fixes.json` in it
    says what was done, and the copy is checked too.

    Raises:
        DataError: the data cannot be read at all, or `fix` exists.
        ConfigError: neither `root` nor a config names the data, its tree is not of their classes, or `html` or `fix` is
            asked of a quick check.
    """
    if quick and (html or fix):
        raise ConfigError("a quick check sees no pixels, so it can draw no page and mend nothing. Leave out --quick.")
    settings = gather(config, {"data.root": root and str(root)}, overrides)
    source = read_source(settings, scan=True)
    if not any(finding.level == "error" for finding in source.findings):
        with located(config):
            tree_of(settings.hierarchy, source.classes)
    with bar("look", 1) as progress:
        if quick:
            return Report(by_level([*check_quick(source, progress.set), *of_batches(settings, source)]), {})
        survey = look(source, progress.set)
    with bar("compare", 1) as progress:
        checked = with_weights(judge(survey, progress.set))
    checked = replace(checked, findings=by_level([*checked.findings, *of_batches(settings, source)]))
    if html:
        check_page(html, checked, settings.data.config.root)
    summary = checked.summary if source.splits else {}
    if not fix:
        return Report(checked.findings, summary)
    fixes = write_fixed(checked, Path(settings.data.config.root), Path(fix), folder_write.write)
    log.info("a check of the copy")
    return Report(checked.findings, summary, fixes, left_in(Path(fix), settings))


def left_in(copy: Path, settings: Settings) -> list[Finding]:
    """The errors of a corrected copy, which has its own classes and splits, for training as these settings say."""
    values = settings.dump()
    data = {"data": {"name": "folder", "root": str(copy)}}
    try:
        findings = check(config=data | {name: values[name] for name in ("input", "augment", "train", "hierarchy")})
    except SegwrightError as error:
        return [Finding("error", "unusable", f"the copy cannot be used: {error}")]
    return [finding for finding in findings.findings if finding.level == "error"]


def of_batches(settings: Settings, source: Source) -> list[Finding]:
    """What training with this config would refuse of the images' sizes."""
    try:
        if "train" in source.splits:
            refuse_mixed_batches(settings, source)
    except ConfigError as error:
        return [Finding("error", "mixed-batches", str(error))]
    except DataError:
        pass  # a file that cannot be read has a finding of its own
    return []


def with_weights(checked: Checked) -> Checked:
    """The same, and as a further finding the class weights that `loss.class_weights=inverse_sqrt` would take."""
    survey = checked.survey
    if survey.is_binary or not survey.by_split.get("train"):
        return checked
    counts = survey.total("train")[: survey.source.num_classes]
    if not counts.any():
        return checked
    pairs = zip(survey.source.classes, weigh(counts, "inverse_sqrt"), strict=True)
    listed = ", ".join(f"{name} {weight:.3g}" for name, weight in pairs)
    what = f"weights for the loss, 1 / sqrt(pixels in train) divided by their mean (rare classes count more): {listed}."
    fix = "If rare classes are found too seldom, set loss.class_weights=inverse_sqrt."
    return replace(checked, findings=[*checked.findings, Finding("info", "class-weights", what, fix)])

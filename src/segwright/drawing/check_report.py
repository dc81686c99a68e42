"""The page of a data check: what was found, the suspicious pictures first, and what the data set is like.

One file that needs no network. Pictures are small JPEGs inside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segwright.datasets.base import LEVELS, Finding
from segwright.drawing import page
from segwright.files import write_bytes

PICTURE_PX = 360
"""Longer side of a picture on the page."""
BINS = 12
"""Bars of the histogram of sizes."""
FILES_SHOWN = 500
"""Names under a finding; a page of a hundred thousand names would not scroll."""
HEADINGS = {"error": "Errors", "warning": "Warnings", "info": "For your information"}
WORDS = {"error": ("error", "errors"), "warning": ("warning", "warnings"), "info": ("note", "notes")}
STYLE = """
.level { display: inline-block; min-width: 5rem; padding: 0 .6rem; border-radius: 1rem; color: #fff; text-align: center;
  font-size: .85rem }
.error { background: #b3261e } .warning { background: #8a5a00 } .info { background: #2f5d8a }
.finding { padding: .75rem 1rem; border: 1px solid var(--line); border-radius: 6px; overflow-wrap: anywhere }
.finding p { margin: .35rem 0 }
.finding ul { margin: .25rem 0; columns: 18rem; font-size: .85rem }
.bar { display: inline-block; height: .8rem; border-radius: 2px; vertical-align: middle; background: #2f7dc4 }
.bars td { white-space: nowrap; min-width: 11rem }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); gap: 1.25rem }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; align-content: start }
.pair p { grid-column: 1 / 3; margin: 0; color: var(--faint); font-size: .9rem }
.pair img { width: 100% }
.pair img, .samples img { max-height: 18rem; object-fit: contain }
"""


@dataclass(frozen=True)
class Picture:
    """A picture, (H, W, 3) uint8, and what stands below it."""

    image: np.ndarray
    caption: str


@dataclass(frozen=True)
class Double:
    """Two pictures that are alike, and how."""

    first: Picture
    second: Picture
    how: str


def check_report(
    path: str | Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    findings: Sequence[Finding],
    shares: Mapping[str, Mapping[str, float]],
    sizes: Sequence[tuple[int, int]],
    suspicious: Sequence[Picture],
    doubles: Sequence[Double],
    samples: Sequence[Picture],
) -> None:
    """Writes the page, whole or not at all; an empty part is left out.

    shares: split -> class -> share of the pixels, 0 to 1. sizes: (H, W) of every image, in pixels.
    """
    body = [
        f"<style>{STYLE}</style><h1>{page.text(title)}</h1>",
        _counts(findings),
        page.facts(facts),
        *(_findings(level, findings) for level in LEVELS[:2]),
        page.section("Suspicious pictures", _pictures(suspicious)),
        page.section("Equal and like pictures", _doubles(doubles)),
        page.section("Shares of the classes", _shares(shares)),
        page.section("Sizes", _sizes(sizes)),
        _findings(LEVELS[2], findings),
        page.section("Samples", _pictures(samples)),
    ]
    write_bytes(path, page.document(title, "\n".join(body)).encode("utf-8", "replace"))


def _counts(findings: Sequence[Finding]) -> str:
    count = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    words = {level: f"{n} {WORDS[level][n != 1]}" for level, n in count.items()}
    return "<p>" + " ".join(f'<span class="level {level}">{word}</span>' for level, word in words.items()) + "</p>"


def _findings(level: str, findings: Sequence[Finding]) -> str:
    return page.section(HEADINGS[level], *(_finding(finding) for finding in findings if finding.level == level))


def _finding(finding: Finding) -> str:
    fix = f"<p>→ {page.text(finding.fix)}</p>" if finding.fix else ""
    return (
        f'<div class="finding"><span class="level {finding.level}">{finding.level}</span> '
        f"<strong>{page.text(finding.code)}</strong><p>{page.text(finding.message)}</p>{fix}{_files(finding.files)}</div>"
    )


def _files(files: Sequence[str]) -> str:
    items = "".join(f"<li>{page.text(file)}</li>" for file in files[:FILES_SHOWN])
    more = f"<p>and {len(files) - FILES_SHOWN} more</p>" if len(files) > FILES_SHOWN else ""
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    return page.details(count, f"<ul>{items}</ul>{more}") if files else ""


def _pictures(pictures: Sequence[Picture]) -> str:
    items = "\n".join(_figure(picture) for picture in pictures)
    return f'<div class="samples">\n{items}\n</div>' if items else ""


def _doubles(doubles: Sequence[Double]) -> str:
    items = "\n".join(
        f'<div class="pair">{_figure(one.first)}{_figure(one.second)}<p>{page.text(one.how)}</p></div>'
        for one in doubles
    )
    return f'<div class="pairs">\n{items}\n</div>' if items else ""


def _figure(picture: Picture) -> str:
    return page.figure(page.inline(page.jpeg(picture.image, PICTURE_PX)), picture.caption)


def _shares(shares: Mapping[str, Mapping[str, float]]) -> str:
    """A row a class, a column a split; bars by the root of the share, or a crack's 2 % could not be seen."""
    names = list(dict.fromkeys(name for classes in shares.values() for name in classes))
    rows = "".join(
        f'<tr><th scope="row">{page.text(name)}</th>'
        + "".join(_bar_cell(classes.get(name, 0), classes.get(name, 0) ** 0.5) for classes in shares.values())
        + "</tr>\n"
        for name in names
    )
    heads = "".join(f'<th scope="col">{page.text(split)}</th>' for split in shares)
    if not rows:
        return ""
    note = "<p>The bars' lengths go with the square root of the share.</p>"
    return f'<div class="wide"><table class="bars"><tr><th>class</th>{heads}</tr>\n{rows}</table></div>{note}'


def _bar_cell(share: float, part: float) -> str:
    return f"<td>{_bar(part)} {100 * share:.3g} %</td>"


def _bar(part: float) -> str:
    return f'<span class="bar" style="width: {6 * part:.2f}rem"></span>'


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    """Each size where there are few, else ranges of the longer side."""
    known = sorted(set(sizes), key=lambda size: -sizes.count(size)) if len(set(sizes)) <= BINS else []
    if known:
        rows = [(f"{width} x {height}", sum(size == (height, width) for size in sizes)) for height, width in known]
        return _histogram("width x height", rows)
    if not sizes:
        return ""
    sides = np.array([max(size) for size in sizes])
    counts, edges = np.histogram(sides, BINS)
    rows = [(f"{low:.0f} to {high:.0f}", int(n)) for n, low, high in zip(counts, edges[:-1], edges[1:], strict=True)]
    return _histogram("longer side in pixels", rows)


def _histogram(what: str, rows: Sequence[tuple[str, int]]) -> str:
    most = max(count for _, count in rows)
    lines = "".join(
        f'<tr><th scope="row">{label}</th><td>{_bar(2 * count / most)} {count}</td></tr>\n' for label, count in rows
    )
    return f'<div class="wide"><table class="bars"><tr><th>{what}</th><th>images</th></tr>\n{lines}</table></div>'

"""report.html: what a run did and how good it is, in one file that needs no network.

Pictures are inlined; whatever comes from outside (names of files, classes and keys) is escaped; a content policy in the
page forbids it to load anything.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segwright.drawing.curves import curves_png
from segwright.errors import DataError
from segwright.files import write_bytes

Sample = tuple[str, np.ndarray, float]
"""Name, picture (H, W, 3) uint8, IoU (NaN where neither truth nor prediction holds anything)."""

SAMPLE_PX = 1200
"""Larger samples are shrunk to this, or a page of photographs would weigh hundreds of megabytes."""
MEDIA_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}

STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --paper: #fff; --soft: #f2f4f6; --line: #d5dae0; --faint: #5d6873 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --paper: #14181c; --soft: #1e242a; --line: #38414a; --faint: #9aa6b2 }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif }
h1 { margin: 0 0 1rem; line-height: 1.2; overflow-wrap: anywhere }
h2 { margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.5rem; margin: 0 }
dt { color: var(--faint) }
dd { margin: 0; overflow-wrap: anywhere }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: .5rem 0 }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: left }
td { font-variant-numeric: tabular-nums }
figure { margin: 0 }
figure img { display: block; max-width: 100%; border-radius: 4px; background: #fff }
figcaption { color: var(--faint); font-size: .9rem; overflow-wrap: anywhere }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 1.25rem }
.samples img { width: 100% }
.stack > * + * { margin-top: 1.25rem }
pre { overflow-x: auto; padding: 1rem; background: var(--soft); border-radius: 4px; font-size: .85rem }
summary { cursor: pointer; margin: 1rem 0 }
"""


def report(
    path: str | Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    figures: Sequence[tuple[str, Path | bytes]],
    best: Sequence[Sample],
    worst: Sequence[Sample],
    config: str = "",
) -> None:
    """Writes the page, whole or not at all; an empty part is left out.

    metrics: a number, or (value, low, high) with its confidence interval; a mapping of class -> {metric: number} makes
    a table of its own. history: the log's rows, drawn as curves. figures: (caption, PNG or JPEG as path or bytes).
    config: the resolved configuration's text. Raises `DataError` for a figure of another format.
    """
    values = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
    tables = {name: value for name, value in metrics.items() if isinstance(value, Mapping)}
    drawn = [("curves over the epochs", curves_png(history)), *figures] if history else figures
    body = [
        f"<h1>{_text(title)}</h1>",
        _facts(facts),
        _section("Metrics", _metrics(values), *(_per_class(name, table) for name, table in tables.items())),
        _section("Figures", *(_figure(_inline(source), caption) for caption, source in drawn)),
        _section("Worst samples", _samples(worst)),
        _section("Best samples", _samples(best)),
        _section("Details", _details("Epochs", _epochs(history)), _details("Resolved configuration", _pre(config))),
    ]
    write_bytes(path, _page(title, "\n".join(body)).encode("utf-8", "replace"))


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _text(value: Any) -> str:
    """Escaped; numbers short, None and NaN as a dash."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return escape(str(value))


def _section(heading: str, *parts: str) -> str:
    inside = "\n".join(part for part in parts if part)
    return f'<section class="stack"><h2>{heading}</h2>\n{inside}\n</section>' if inside else ""


def _details(summary: str, inside: str) -> str:
    return f"<details><summary>{summary}</summary>\n{inside}\n</details>" if inside else ""


def _pre(text: str) -> str:
    return f"<pre>{escape(text)}</pre>" if text else ""


def _facts(facts: Mapping[str, Any]) -> str:
    items = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    return f"<dl>{items}</dl>" if items else ""


def _table(heads: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """The first cell of each row is its heading."""
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in heads)
    body = ""
    for first, *rest in rows:
        body += f'<tr><th scope="row">{_text(first)}</th>{"".join(f"<td>{_text(cell)}</td>" for cell in rest)}</tr>\n'
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>' if body else ""
    )


def _metrics(values: Mapping[str, Any]) -> str:
    with_interval = any(isinstance(value, tuple | list) for value in values.values())
    rows = []
    for name, value in values.items():
        number, *interval = value if isinstance(value, tuple | list) else (value,)
        between = [f"{interval[0]:.4g} to {interval[1]:.4g}" if interval else ""]
        rows.append([name, number, *(between if with_interval else [])])
    return _table(["metric", "value", "confidence interval"][: 3 if with_interval else 2], rows)


def _per_class(name: str, table: Mapping[str, Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    return _table([name, *columns], ([label, *(row.get(column) for column in columns)] for label, row in table.items()))


def _epochs(history: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in history for key in row))
    return _table(columns, ([row.get(column) for column in columns] for row in history))


def _samples(samples: Sequence[Sample]) -> str:
    items = "\n".join(_figure(_inline(_jpeg(image)), f"{name}: IoU {_score(iou)}") for name, image, iou in samples)
    return f'<div class="samples">\n{items}\n</div>' if items else ""


def _score(iou: float) -> str:
    return f"{iou:.3f}" if iou == iou else "undefined (nothing there, nothing found)"


def _figure(source: str, caption: str) -> str:
    return f'<figure><img src="{source}" alt="{_text(caption)}"><figcaption>{_text(caption)}</figcaption></figure>'


def _inline(source: Path | bytes) -> str:
    """A data address of a PNG or JPEG."""
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    for start, media_type in MEDIA_TYPES.items():
        if data.startswith(start):
            return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
    name = "some bytes" if isinstance(source, bytes) else source
    raise DataError(f"a figure of the report ({name}) is neither PNG nor JPEG; browsers may not show it. Convert it.")


def _jpeg(image: np.ndarray) -> bytes:
    """Colours are kept at full resolution, or one-pixel lines would fade."""
    picture = Image.fromarray(image)
    picture.thumbnail((SAMPLE_PX, SAMPLE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, subsampling="4:4:4")
    return buffer.getvalue()

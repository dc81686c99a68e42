"""The parts of a page in one file that needs no network: text, tables, pictures.

Pictures are inlined; whatever comes from outside (names of files, classes and keys) is escaped; a content policy in the
page forbids it to load anything.
"""

import base64
import io
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segwright.errors import DataError
from segwright.files import printable

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


def document(title: str, body: str) -> str:
    """The whole page around a body."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def text(value: Any) -> str:
    """Escaped; numbers short, None and NaN as a dash."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return escape(printable(value))


def section(heading: str, *parts: str) -> str:
    """The parts under a heading; nothing where all of them are empty."""
    inside = "\n".join(part for part in parts if part)
    return f'<section class="stack"><h2>{heading}</h2>\n{inside}\n</section>' if inside else ""


def details(summary: str, inside: str) -> str:
    """What is shown on a click; nothing where there is nothing inside."""
    return f"<details><summary>{summary}</summary>\n{inside}\n</details>" if inside else ""


def pre(lines: str) -> str:
    """Text as it stands, with its line breaks."""
    return f"<pre>{escape(lines)}</pre>" if lines else ""


def facts(pairs: Mapping[str, Any]) -> str:
    """Names and values in two columns."""
    items = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs.items())
    return f"<dl>{items}</dl>" if items else ""


def table(heads: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """The first cell of each row is its heading."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in heads)
    body = ""
    for first, *rest in rows:
        body += f'<tr><th scope="row">{text(first)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in rest)}</tr>\n'
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>' if body else ""
    )


def figure(source: str, caption: str) -> str:
    """A picture by its address, with its caption below."""
    return f'<figure><img src="{source}" alt="{text(caption)}"><figcaption>{text(caption)}</figcaption></figure>'


def inline(source: Path | bytes) -> str:
    """A data address of a PNG or JPEG."""
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    for start, media_type in MEDIA_TYPES.items():
        if data.startswith(start):
            return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
    name = "some bytes" if isinstance(source, bytes) else source
    raise DataError(f"a figure of the report ({name}) is neither PNG nor JPEG; browsers may not show it. Convert it.")


def jpeg(image: np.ndarray, side_px: int = SAMPLE_PX) -> bytes:
    """Shrunk to `side_px`. Colours are kept at full resolution, or one-pixel lines would fade."""
    picture = Image.fromarray(image)
    picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, subsampling="4:4:4")
    return buffer.getvalue()

"""What a comparison looks like: on a terminal, as Markdown, CSV, and one page with pictures."""

import csv
import io
import logging
import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segwright.bootstrap import Difference, Interval
from segwright.drawing import page
from segwright.drawing.compared import Bar, bars_png, courses_png
from segwright.errors import SegwrightError
from segwright.files import write_bytes, write_text
from segwright.verbs.compare_pictures import pictures_of
from segwright.verbs.comparison import Comparison, Evaluated

log = logging.getLogger("segwright")

Cells = list[list[str]]
NOTE = (
    "IoU: the mean over the classes that the masks have, with the middle 95 % of a bootstrap over the images. p is "
    "two-sided, paired over the same images and corrected for the number of pairs (Holm); below 0.05 a difference "
    "counts as real: it would hold for other images of this kind. It says nothing about another seed: for that, "
    "train each more than once."
)


def write_all(result: Comparison, with_pictures: bool) -> None:
    """`comparison.md`, `comparison.csv`, `comparison_per_class.csv` and `comparison.html`."""
    differing = different_ways(result.runs)
    if differing:
        log.warning("the runs were evaluated in different ways: %s", differing)
    write_text(result.folder / "comparison.md", markdown(result))
    write_text(result.folder / "comparison.csv", _csv(overall(result)))
    write_text(result.folder / "comparison_per_class.csv", _csv(by_class(result)))
    write_bytes(result.folder / "comparison.html", html(result, with_pictures).encode("utf-8", "replace"))
    log.info("written: %s", result.folder / "comparison.html")


def overall(result: Comparison) -> Cells:
    """A heading and a line a run, from the best."""
    facts = [run.facts() for run in result.runs]
    known = [name for name in facts[0] if any(fact[name] is not None for fact in facts)]
    lines = [["run", "IoU", "95 %", "Dice", *known]]
    for run, fact in zip(result.runs, facts, strict=True):
        value, between = result.iou[run.name]
        dice = _number(result.dice[run.name])
        lines.append([run.name, _number(value), _between(between), dice, *(_number(fact[name]) for name in known)])
    return lines


def by_class(result: Comparison) -> Cells:
    """A heading and a line a class: each run's IoU, and by how much the first run is above each other."""
    names, best = [run.name for run in result.runs], result.runs[0].name
    against = [pair for pair in result.pairs if pair.better == best]
    lines = [["class", *names, *(f"{best} - {pair.other}" for pair in against)]]
    for label, row in result.per_class.items():
        scores = [f"{_number(row[name][0])} [{_between(row[name][1])}]" for name in names]
        lines.append([label, *scores, *(_signed(pair.per_class[label]) for pair in against)])
    return lines


def differences(result: Comparison) -> Cells:
    """A heading and a line a pair of runs."""
    lines = [["better", "than", "by (IoU)", "95 %", "p", "real"]]
    for pair in result.pairs:
        d = pair.iou
        values = (_number(d.value), _between(d.between), f"{d.p:.3g}", "yes" if pair.real else "no")
        lines.append([pair.better, pair.other, *values])
    return lines


def verdict(result: Comparison) -> str:
    """One sentence: is the best one really better."""
    best = result.runs[0].name
    against = [pair for pair in result.pairs if pair.better == best]
    beaten, open_ = [pair.other for pair in against if pair.real], [pair.other for pair in against if not pair.real]
    told = [f"better than {', '.join(beaten)}, and the difference is real"] if beaten else []
    if open_:
        told.append(f"ahead of {', '.join(open_)}, but {result.num_images} images cannot tell them apart")
    return f"{best} is {'; it is '.join(told)}."


def note(result: Comparison) -> str:
    """How to read the tables, and what the runs' evaluations do not have in common."""
    differing = different_ways(result.runs)
    told = f" The runs were evaluated in different ways, which can make part of a difference: {differing}."
    return NOTE + (told if differing else "")


def different_ways(runs: Sequence[Evaluated]) -> str:
    """What differs in how the runs were evaluated; empty where nothing does, or nothing is known."""
    told = []
    for key in dict.fromkeys(key for run in runs for key in run.way):
        names: dict[str, list[str]] = {}
        for run in runs:
            if key in run.way:
                names.setdefault(str(run.way[key]), []).append(run.name)
        if len(names) > 1:
            values = (f"{value} ({', '.join(of)})" for value, of in names.items())
            told.append(f"{key} {', '.join(values)}")
    return "; ".join(told)


def _number(value: Any) -> str:
    if value is None or value != value:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _between(pair: Interval | None) -> str:
    return f"{pair[0]:.4f} to {pair[1]:.4f}" if pair else "-"


def _signed(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    return f"{difference.value:+.4f} [{_between(difference.between)}]"


def _title(result: Comparison) -> str:
    return f"{len(result.runs)} runs on the {result.num_images} images of {result.split}"


def markdown(result: Comparison) -> str:
    """The tables as Markdown."""
    tables = "\n\n".join(_markdown(cells) for cells in (overall(result), differences(result), by_class(result)))
    return f"# {_title(result)}\n\n{verdict(result)}\n\n{tables}\n\n{note(result)}\n"


def _markdown(cells: Cells) -> str:
    head, *lines = [[cell.replace("|", "\\|") for cell in line] for line in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def _csv(cells: Cells) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(cells)
    return text.getvalue()


def show(result: Comparison, console: Console) -> None:
    """The tables on a terminal; into a file or pipe, which has no width to fit, as Markdown."""
    if not console.is_terminal:
        console.print(markdown(result), soft_wrap=True, markup=False, highlight=False)
        return
    for cells in (overall(result), differences(result), by_class(result)):
        head, *lines = cells
        table = Table(*head, pad_edge=False)
        for line in lines:
            table.add_row(*(Text(cell) for cell in line))
        console.print(table)
    console.print(verdict(result), markup=False, highlight=False)


def html(result: Comparison, with_pictures: bool) -> str:
    """The page."""
    shown = _pictures(result) if with_pictures else []
    body = [
        f"<h1>{page.text(_title(result))}</h1><p>{page.text(verdict(result))}</p>",
        page.section("Runs", _table(overall(result)), f"<p>{page.text(note(result))}</p>"),
        page.section("Differences", _table(differences(result))),
        page.section("Classes", page.figure(page.inline(_bars(result)), "IoU"), _table(by_class(result))),
        page.section("Course", _courses(result)),
        page.section("Pictures", *shown),
    ]
    return page.document(_title(result), "\n".join(body))


def _table(cells: Cells) -> str:
    return page.table(cells[0], cells[1:])


def _bars(result: Comparison) -> bytes:
    rows = {"mean": result.iou, **(result.per_class if len(result.classes) > 1 else {})}
    groups = {label: {name: _bar(*row[name]) for name in result.iou} for label, row in rows.items()}
    return bars_png(groups, "IoU")


def _bar(value: float, between: Interval | None) -> Bar:
    return (value, *(between or (math.nan, math.nan)))


def _courses(result: Comparison) -> str:
    """Validation IoU over the epochs, and over the time that training took."""
    by_epoch, by_time = {}, {}
    for run in result.runs:
        rows = [row for row in run.log if row.get("valid_iou")]
        scores = [float(row["valid_iou"]) for row in rows]
        passed = [sum(float(row.get("seconds") or 0) for row in rows[: i + 1]) for i in range(len(rows))]
        by_epoch[run.name] = list(zip((float(row["epoch"]) for row in rows), scores, strict=True))
        by_time[run.name] = list(zip(passed, scores, strict=True))
    drawn = (
        courses_png(by_epoch, "epoch", "validation IoU"),
        courses_png(by_time, "training time, s", "validation IoU"),
    )
    captions = ("validation IoU over the epochs", "the same over the time of training")
    return "\n".join(page.figure(page.inline(png), text) for png, text in zip(drawn, captions, strict=True))


def _pictures(result: Comparison) -> Sequence[str]:
    """Images on which the runs differ most; none where data or weights are no longer there."""
    try:
        drawn = pictures_of(result)
    except (SegwrightError, OSError) as error:
        log.warning("the page has no pictures of images: %s", error)
        return []
    return [page.figure(page.inline(page.jpeg(picture)), caption) for caption, picture in drawn]

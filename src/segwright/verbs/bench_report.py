"""The table of `segwright bench`: its cells, its title, and both as Markdown."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segwright.verbs.peers import OURS
from segwright.verbs.workload import Load, device_of

COLUMNS = ("model", "by", "images/s", "ratio", "first s", "peak MiB", "parameters", "GMAC/image", "share", "claimed")
"""`ratio`: how many times faster Segwright is. `first s`: the first call of all, which also compiles. `share`: of the
machine's rate at a matrix product."""

KINDS = {
    "infer": "inference",
    "masks": "inference to class ids",
    "train": "a training step (loss at full size, AdamW)",
}


def table(result: dict[str, Any]) -> list[list[str]]:
    """The cells of `COLUMNS`, a line a contender."""
    lines = []
    for block in result["blocks"]:
        design, claim = block["load"]["design"], block["claim"]
        for values in block["rows"]:
            said = _claimed(claim) if claim and values["name"] == OURS else "-"
            numbers = (
                _cell(values.get("images_per_s"), "{:.2f}"),
                _cell(values.get("segwright_is_faster_by"), "{:.2f}"),
                _cell(values.get("first_call_s"), "{:.1f}"),
                _cell(values.get("peak_memory_mb"), "{:,.0f}"),
                _cell(values.get("parameters"), "{:,}"),
                _cell(values.get("macs_per_image"), "{:.2f}", 1e9),
                _cell(values.get("share_of_matrix_rate"), "{:.2f}"),
            )
            by = f"{values['name']} in {values['precision']}" if "precision" in values else values["name"]
            lines.append([f"{design['encoder']} + {design['head']}", by, *numbers, said])
    return lines


def _cell(value: float | None, form: str, unit: float = 1) -> str:
    return "-" if value is None else form.format(value / unit if unit != 1 else value)


def _claimed(claim: dict[str, Any]) -> str:
    known = ((claim["images_per_s"], "images/s"), (claim["gb"], "GB"))
    return ", ".join(f"{value:g} {unit}" for value, unit in known if value is not None)


def title(result: dict[str, Any]) -> str:
    """Under which settings the numbers were measured."""
    load, precision = result["blocks"][0]["load"], result["blocks"][0]["precision"]
    made = result["environment"]
    where = ", ".join(made["gpus"]) if device_of(Load.from_dict(load)).type == "cuda" else f"{made['threads']} threads"
    kind = KINDS[load["mode"]]
    memory = "allocator keeps memory" if load["keep_memory"] else "allocator as it is"
    settings = "each at its own defaults" if load["own_defaults"] else f"{precision}, {memory}"
    size, rounds = load["size"], result["rounds"]
    return (
        f"{kind}, {size} x {size}, batch {load['batch']}, {load['design']['classes']} classes, {where}, "
        f"{settings}, median of {rounds} interleaved rounds"
    )


def bench_table(result: dict[str, Any], console: Console) -> None:
    """The table on a terminal; into a file or pipe, which has no width to fit, as Markdown."""
    if not console.is_terminal:
        console.print(markdown(result), soft_wrap=True, markup=False, highlight=False)
        return
    shown = Table(pad_edge=False, title=title(result), title_justify="left")
    for index, column in enumerate(COLUMNS):
        shown.add_column(column, justify="left" if index < 2 else "right")
    for line in table(result):
        shown.add_row(*(Text(cell) for cell in line))
    console.print(shown)


def markdown(result: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *table(result)]
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    versions = result["environment"]["packages"] | result["peers"]
    packages = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    return f"{title(result)}\n\n{rows}\n\n{packages}\n"

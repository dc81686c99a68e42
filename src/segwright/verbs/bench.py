"""`segwright bench`: images per second and memory of an encoder with a head, beside the same model of its peers.

All contenders take turns, round by round, in alternating order, so that a disturbance of the machine meets all of them:
in one process where their settings are the same, each in its own where every library has its own defaults. In every
round the machine's rate at a matrix product is measured too; a model's share of it says how much of what the machine
can do it uses.
"""

import json
import logging
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from segwright.engine.rounding import HALVES
from segwright.errors import ConfigError, SegwrightError
from segwright.files import write_text
from segwright.model import count_parameters
from segwright.training.records import environment
from segwright.verbs.bench_report import markdown
from segwright.verbs.peers import OURS, PACKAGES, Design, build, check_peers
from segwright.verbs.stint import Stint, peak_mb
from segwright.verbs.turns import begun, take_turns
from segwright.verbs.workload import (
    Load,
    as_run_by,
    count_macs,
    device_of,
    precision_of,
    prepare,
    settle,
)

log = logging.getLogger("segwright")

MATRIX_SIDE = 2048
"""Rows and columns of the matrices whose product gives the machine's rate: 2 * 2048^3 = 17.2 GFLOP."""
COMPILED = " compiled"
"""Behind the name of a contender that went through `torch.compile`."""
TRAINING_PASSES = 3
"""A training step does about three times the arithmetic of its forward pass: two more products for each in it."""


@dataclass(frozen=True)
class Claim:
    """One combination of `--matrix`, with what SegHiero's architecture guide says of it (RTX 3090, batch 8): the
    numbers of its "Performance Notes", and for the faster heads 40 and 60 % above the full one's, as said there."""

    design: Design
    images_per_s: float | None
    memory_gb: float | None


MATRIX = (
    Claim(Design("resnet50", "aspp"), 25, 6),
    Claim(Design("resnet101", "aspp"), 18, 8),
    Claim(Design("convnext_tiny", "aspp"), 20, None),
    Claim(Design("mit_b0", "segformer", 256), 15, 7),
    Claim(Design("mit_b5", "segformer", 256), 5, 18),
    Claim(Design("mit_b0", "ultrafast_segformer", 128), 21, None),
    Claim(Design("mit_b0", "extremely_fast_segformer", 64), 24, None),
    Claim(Design("convnext_base", "aspp"), None, 10),
)
"""Where no speed is claimed, only the memory is measured."""


def bench(
    loads: Sequence[Load],
    against: Sequence[str] = (),
    rounds: int = 10,
    memory: bool = True,
    output: str | Path = "benchmarks/results",
    claims: Sequence[Claim] = (),
) -> dict[str, Any]:
    """Measures each load; writes a JSON and a Markdown file into `output` and gives what the JSON holds.

    Args:
        loads: what to measure, one after the other.
        against: peers: `transformers`, `smp`. One that has no such model is left out of that load.
        rounds: rounds that count.
        memory: measure the peak memory too, each contender in a process of its own.
        claims: what somebody says of each load, if anybody does.

    Raises:
        ConfigError: no such peer, encoder or head, or no rounds.
        MissingPackageError: a peer that is not installed; before anything is measured.
    """
    if rounds < 1:
        raise ConfigError(f"--rounds is {rounds}; a median needs 1 or more. 10 is the default.")
    check_peers(against)
    settle(loads[0])
    claimed: list[Claim | None] = [*claims] or [None] * len(loads)
    blocks = [
        measure_block(load, claim, [OURS, *against], rounds, memory) for load, claim in zip(loads, claimed, strict=True)
    ]
    versions = {PACKAGES[name][1]: version(PACKAGES[name][1]) for name in against}
    result = {"environment": environment(), "peers": versions, "rounds": rounds, "blocks": blocks}
    write_results(result, Path(output))
    return result


def bench_matrix(like: Load, **options: Any) -> dict[str, Any]:
    """`bench` over `MATRIX`, each under the settings of `like`."""
    return bench([replace(like, design=claim.design) for claim in MATRIX], claims=MATRIX, **options)


def bench_defaults(load: Load, **options: Any) -> dict[str, Any]:
    """`bench` with every library as its users get it, beside the peers: ours in fp32 and then, where the machine gains
    by it, in mixed precision."""
    full, mixed = (replace(load, own_defaults=True, amp=amp) for amp in (False, True))
    return bench([full] if precision_of(mixed) == precision_of(full) else [full, mixed], **options)


def measure_block(load: Load, claim: Claim | None, names: Sequence[str], rounds: int, memory: bool) -> dict[str, Any]:
    """What is written of one load."""
    if load.own_defaults:
        rows = measure_apart(load, names, rounds)
    elif claim is None or claim.images_per_s is not None:
        rows = measure(load, names, rounds)
    else:
        rows = [{"name": name} for name in build_all(load, names)]
    for values in rows if memory and not load.own_defaults else []:
        if not values["name"].endswith(COMPILED):  # a compiler's own memory is not the model's
            values["peak_memory_mb"] = peak_or_none(values["name"], load)
    return {
        "load": asdict(load),
        "precision": precision_of(load),
        "claim": claim and {"images_per_s": claim.images_per_s, "gb": claim.memory_gb},
        "rows": rows,
    }


def peak_or_none(name: str, load: Load) -> float | None:
    """The peak memory in MiB; None, and a warning, for a peer that cannot do this work."""
    try:
        return peak_mb(name, load)
    except SegwrightError as error:
        if name == OURS:
            raise
        log.warning("%s", error)
        return None


def build_all(load: Load, names: Sequence[str]) -> dict[str, nn.Module]:
    """The contenders with random weights, on the CPU. Says who has no such model, or another one."""
    torch.manual_seed(0)
    models = {}
    for name in names:
        model = build(name, load.design)
        if model is None:
            log.info("%s has no %s with %s; it is left out", name, load.design.encoder, load.design.head)
            continue
        if name != OURS and not load.design.is_segformer:
            log.info("%s: %s is alike, but not the same function", name, type(model).__name__)
        models[name] = model
    return models


def measure(load: Load, names: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """A row a contender: speed, ratio, parameters, arithmetic. Who cannot do the work has none."""
    models = build_all(load, names)
    steps, first_s = begun({name: prepare(model, load) for name, model in models.items()}, device_of(load))
    sizes = {name: (count_parameters(models[name]), count_macs(models[name], load)) for name in steps}
    if load.compile:
        compiled = {name + COMPILED: prepare(cast("nn.Module", torch.compile(models[name])), load) for name in steps}
        more, more_s = begun(compiled, device_of(load))
        steps, first_s = steps | more, first_s | more_s
    seconds = take_turns(steps | {"": multiply(load)}, rounds, device_of(load))
    rate = 2 * MATRIX_SIDE**3 / statistics.median(seconds[""])
    return [
        row(name, load, *sizes[name.removesuffix(COMPILED)], seconds, rate) | {"first_call_s": first_s[name]}
        for name in steps
    ]


def measure_apart(load: Load, names: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """The same, every contender in a process of its own with its own settings; its peak memory with it."""
    with ExitStack() as stack:
        stints = {name: stack.enter_context(Stint(name, as_run_by(name, load))) for name in names}
        steps, _ = begun({name: stint.step for name, stint in stints.items()}, device_of(load))
        stints = {name: stints[name] for name in steps}
        seconds = take_turns(steps | {"": multiply(load)}, rounds, device_of(load))
        rate = 2 * MATRIX_SIDE**3 / statistics.median(seconds[""])
        peaks = {name: stint.peak_mb() for name, stint in stints.items()}
        rows = [row(name, load, *stint.sizes(), seconds, rate) for name, stint in stints.items()]
    for values in rows:
        name = values["name"]
        values |= {"precision": precision_of(as_run_by(name, load)), "peak_memory_mb": peaks[name]}
    return rows


def row(name: str, load: Load, params: int, macs: int, seconds: dict[str, list[float]], rate: float) -> dict[str, Any]:
    """What is written of one contender. `macs` are those of a forward pass of one image."""
    median = statistics.median(seconds[name])
    passes = TRAINING_PASSES if load.mode == "train" else 1
    return {
        "name": name,
        "images_per_s": load.batch / median,
        "segwright_is_faster_by": median / statistics.median(seconds[OURS]),
        "parameters": params,
        "macs_per_image": macs,
        "share_of_matrix_rate": 2 * macs * load.batch * passes / median / rate,
        "matrix_gflop_per_s": rate / 1e9,
        "seconds": seconds[name],
    }


def multiply(load: Load) -> Callable[[], None]:
    """One product of two square matrices in the precision of the load."""
    dtype = HALVES.get(precision_of(load), torch.float32)
    a = torch.randn(MATRIX_SIDE, MATRIX_SIDE, device=device_of(load)).to(dtype)
    out = torch.empty_like(a)

    def product() -> None:
        torch.mm(a, a, out=out)

    return product


def write_results(result: dict[str, Any], folder: Path) -> None:
    """`bench_<what>.json`, and a table of it as `.md`."""
    first = result["blocks"][0]
    load, design = first["load"], first["load"]["design"]
    apart = load["own_defaults"]
    what = "matrix" if first["claim"] else f"{design['encoder']}_{design['head']}"
    device = "gpu" if device_of(Load.from_dict(load)).type == "cuda" else "cpu"
    options = {
        "_plain_memory": device == "cpu" and not load["keep_memory"],
        "_channels_last": load["channels_last"],
        "_compile": load["compile"],
    }
    settings = ("defaults" if apart else first["precision"]) + "".join(name for name, on in options.items() if on)
    stem = f"bench_{what}_{load['mode']}_{load['size']}_b{load['batch']}_{settings}_{device}"
    write_text(folder / f"{stem}.json", json.dumps(result, indent=2))
    write_text(folder / f"{stem}.md", markdown(result))
    log.info("written: %s.json and .md", folder / stem)

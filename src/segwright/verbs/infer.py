"""`segwright infer`: masks and overlays for a file, a folder or a glob."""

import json
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segwright.ahead import ahead, cores, emptied
from segwright.drawing.classes import class_colours
from segwright.errors import SegwrightError
from segwright.files import refuse_file, write_text
from segwright.images import has_large_image
from segwright.large import LARGE_PX
from segwright.progress import bar
from segwright.transforms import Size, resize
from segwright.verbs.infer_files import (
    Masks,
    NotPredicted,
    Written,
    endings,
    read_photograph,
    too_large,
    write_pictures,
)
from segwright.verbs.infer_names import output_names, stop_on_others
from segwright.verbs.infer_report import MEANING, PAGE, stop_on_other_report, tell, write_report
from segwright.verbs.inputs import find_images
from segwright.verbs.loading import Loaded, load_model

log = logging.getLogger("segwright")

THREADS = min(8, cores())
"""That read, draw and write."""
HELD_PX = LARGE_PX
"""Pixels of the images that are drawn and written at a time, where they are several; each takes some 15 bytes."""
PICTURES = 60
"""Images that the page shows: each weighs some 60 kB."""


@dataclass
class Inference:
    """What was written, and which files could not be read."""

    folder: Path
    written: list[Path] = field(default_factory=list)
    """The masks."""
    failed: dict[str, str] = field(default_factory=dict)
    """File -> what is wrong with it."""


def infer(
    weights: str | Path,
    inputs: str | Path,
    save: str | Path = "outputs/infer",
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> Inference:
    """Writes `<stem>_mask.png` and `<stem>_overlay.png` for each image.

    A mask holds 0 and 255 for one class, else the class ids, with a palette of the classes' colours. With a tree of
    classes there are `<stem>_<level>_mask.png` and `<stem>_<level>_overlay.png` of its upper levels, too.
    With several classes `mask_classes.json` says what the values stand for. `mask_shares.csv` says how much of each
    image is which class, and `masks.html` shows them.
    All are marked as predictions (`segwright.png.is_prediction`), so that no search for masks takes them for truth.
    A file that cannot be read, or whose name leaves no room for that, is reported and left out; the others are done.

    Raises:
        DataError: `inputs` names no image, or a file that is no marked prediction would be overwritten.
        WeightsError: the weights cannot be used.
        SegwrightError: a file is in the way of the folder `save`.
    """
    files = find_images(inputs)
    refuse_file(save, "--save")
    loaded = load_model(weights, config, flags, overrides)
    result = Inference(Path(save))
    ends = endings(upper_levels(loaded))
    names = output_names(files, ends)
    pictures = {name + end for name in names for end in ends}
    stop_on_others(result.folder, sorted(pictures))
    stop_on_other_report(result.folder)
    pairs = [(path, result.folder / name) for path, name in zip(files, names, strict=True)]
    written: dict[str, Written] = {}
    one_folder = len({path.parent for path in files}) == 1
    try:
        with bar("infer", len(files)) as progress, ThreadPoolExecutor(THREADS) as pool:
            for path, done in zip(files, infer_many(loaded, pairs, pool), strict=True):
                try:
                    written[path.name if one_folder else str(path)] = done.result()
                except NotPredicted as error:
                    log.error("%s", error)
                    result.failed[str(path)] = str(error)
                progress.advance()
    except KeyboardInterrupt:
        log.warning("stopped after %d of %d images", len(written), len(files))
        report(result, loaded, str(weights), written)
        raise
    report(result, loaded, str(weights), written)
    tell(result.folder, written, pictures)
    result.written += [one.mask for one in written.values()]
    return result


def report(result: Inference, loaded: Loaded, weights: str, written: Mapping[str, Written]) -> None:
    """What stands beside the pictures, of those that are there."""
    if written and len(loaded.classes) > 1:
        write_text(result.folder / MEANING, json.dumps(meaning(loaded), indent=1, ensure_ascii=False))
    elif written:
        (result.folder / MEANING).unlink(missing_ok=True)  # an earlier model's classes are not these masks'
    if written or (result.folder / PAGE).is_file():  # which would still show an earlier call's
        colours = class_colours(loaded.classes, loaded.colours)
        write_report(result.folder, weights, loaded.classes, colours, written, result.failed)


def meaning(loaded: Loaded) -> dict[str, list[dict[str, Any]]]:
    """Of each kind of mask by the end of its name what its values stand for: id, name and RGB of each class."""
    kinds = {"mask": (loaded.classes, class_colours(loaded.classes, loaded.colours))}
    if loaded.predictor.tree is not None:
        tree = loaded.predictor.tree.hierarchy
        for number, level in enumerate(tree.level_names[:-1]):
            kinds[f"{level}_mask"] = (list(tree.names(number)), class_colours(tree.names(number)))
    return {
        kind: [{"id": place, "name": name, "color": [*map(int, rgb[:3])]} for place, (name, rgb) in enumerate(pairs)]
        for kind, pairs in ((kind, zip(names, colours, strict=False)) for kind, (names, colours) in kinds.items())
    }


def infer_one(loaded: Loaded, path: Path, stem: Path, thumbnail: bool = False) -> Written:
    """Predicts one file and writes its pictures. Raises `NotPredicted`."""
    image = read_photograph(path, stem, upper_levels(loaded))
    return write_pictures(path, image, _masks_of(loaded, path, image), stem, len(loaded.classes) == 1, thumbnail)


def infer_many(loaded: Loaded, pairs: Sequence[tuple[Path, Path]], pool: Executor) -> Iterator[Future[Written]]:
    """Of each file and stem, in order, what was written, or `NotPredicted`.

    While the model works on one image, the next is read and those before are drawn and written: so many as there are
    threads, fewer where they are large. A very large one is read, predicted and written by itself.
    """
    levels, binary = upper_levels(loaded), len(loaded.classes) == 1

    def read(pair: tuple[Path, Path]) -> np.ndarray | None:
        return None if has_large_image(pair[0]) else read_photograph(*pair, levels)

    writing: deque[tuple[int, Future[Written]]] = deque()
    shown = 0
    for (path, stem), reading in zip(pairs, ahead(pool, read, pairs, depth=1), strict=True):
        done, pixels = Future[Written](), 0
        try:
            image = reading.result()
            if image is None:
                yield from (written for _, written in emptied(writing))
                done.set_result(infer_one(loaded, path, stem, shown < PICTURES))
            else:
                masks, pixels = _masks_of(loaded, path, image), image.shape[0] * image.shape[1]
                done = pool.submit(write_pictures, path, image, masks, stem, binary, shown < PICTURES)
            shown += 1
        except NotPredicted as error:
            done.set_exception(error)
        writing.append((pixels, done))
        while len(writing) > THREADS or (len(writing) > 1 and sum(pixels for pixels, _ in writing) > HELD_PX):
            yield writing.popleft()[1]
    yield from (written for _, written in emptied(writing))


def _masks_of(loaded: Loaded, path: Path, image: np.ndarray) -> Masks:
    """`level_masks` of this file's image; `NotPredicted` where the model cannot take it."""
    try:
        return level_masks(loaded, image)
    except SegwrightError as error:
        raise NotPredicted(str(error) if path.name in str(error) else f"{path}: {error}") from None
    except MemoryError:
        raise too_large(path) from None


def upper_levels(loaded: Loaded) -> list[str]:
    """The names of a tree's levels above the leaves, coarsest first; of other models none."""
    tree = loaded.predictor.tree
    return list(tree.hierarchy.level_names[:-1]) if tree else []


def level_masks(loaded: Loaded, image: np.ndarray) -> Masks:
    """What the model says of an image (H, W, 3) uint8."""
    predictor, logits = loaded.predictor, network_logits(loaded, image)
    height, width = image.shape[:2]
    own = class_colours(loaded.classes, loaded.colours)
    if predictor.tree is None:
        return {"": (predictor.ids(logits, (height, width)), own)}
    tree = predictor.tree.hierarchy
    found, _ = predictor.levels(logits, (height, width))
    upper = zip(tree.level_names[:-1], found, strict=False)
    masks = {name: (mask, class_colours(tree.names(number))) for number, (name, mask) in enumerate(upper)}
    return masks | {"": (found[-1], own)}


def network_logits(loaded: Loaded, image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 RGB -> logits (K, h, w) as the predictor's other methods take them."""
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    height, width = image.shape[:2]
    own: Size = (height, width)
    tensor, _ = resize(tensor, torch.zeros(own, dtype=torch.uint8), loaded.settings.input.pixels() or own)
    return loaded.predictor.logits(tensor[None], resize=False)[0]

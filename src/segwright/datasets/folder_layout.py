"""Where images and masks lie: by patterns, or found by the names of folders.

A pattern is a path from the data set's folder, e.g. `leftImg8bit/{split}/*/*_leftImg8bit.png`. `{split}` stands for a
split's folder, `*` for anything within one name, `**/` for any folders. Without an ending it finds images of any kind;
the case of an ending does not matter, and `.jpg` is also `.jpeg`, `.tif` also `.tiff`.
An image and a mask belong together if their `*` stand for the same, in the same split.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from segwright.errors import DataError
from segwright.images import IMAGE_SUFFIXES

SPLIT_WORDS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
}
IMAGE_WORDS = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit", "photos", "pictures", "rgb", "inputs")
MASK_WORDS = (
    "masks", "mask", "annotations", "annotation", "annot", "labels", "label", "lab", "gtfine", "gt", "groundtruth",
    "ground_truth", "segmentationclass", "segmentation", "segmentations", "targets",
)  # fmt: skip
"""Names of folders, in lower case; of two that fit equally, the earlier."""
MASK_ENDINGS = (
    "", "_mask", "_masks", "-mask", ".mask", "_label", "_labels", "_gt", "_seg", "_segmentation", "_annotation", "_L",
)  # fmt: skip
"""What may stand behind an image's name in the name of its mask."""
READERS = 8
"""Threads that wait for files."""
_SAME = ((".jpg", ".jpeg"), (".tif", ".tiff"))
_SUFFIX = "(?i:" + "|".join(re.escape(suffix) for suffix in IMAGE_SUFFIXES) + ")"

Key = tuple[str, ...]
"""What the `*` of a pattern stand for."""
Found = dict[tuple[str, Key], str]
"""(split, key) -> file; the split is empty where the pattern has none."""
Pairs = dict[tuple[str, Key], tuple[str, str]]
"""(split, key) -> (image, mask)"""


@dataclass(frozen=True)
class Layout:
    """Two patterns."""

    images: str
    masks: str


def listing(root: Path) -> list[str]:
    """All image files below the folder, as relative paths with forward slashes, sorted. Hidden ones are left out.

    Links to folders are followed, each folder once.
    """
    found, seen = [], set()
    for parent, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith((".", "__"))]
        if real not in seen:
            found += [
                Path(parent, name).relative_to(root).as_posix()
                for name in names
                if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)
            ]
        seen.add(real)
    return sorted(found)


def words(folders: Mapping[str, str | None]) -> dict[str, str]:
    """Name of a split's folder in lower case -> split. `folders`: split -> the name it has; none: the usual ones."""
    return {
        word.lower(): split
        for split, own in folders.items()
        for word in ((own,) if own is not None else SPLIT_WORDS[split])
    }


def matched(files: Iterable[str], pattern: str, known: Mapping[str, str]) -> tuple[Found, list[tuple[str, str]]]:
    """The files that a pattern finds, and pairs of files that it cannot tell apart."""
    expression, found, doubled = _expression(pattern, known), Found(), []
    for file in files:
        match = expression.fullmatch(file)
        if match:
            split = known[match["split"].lower()] if "{split}" in pattern else ""
            key = split, tuple(text or "" for name, text in _groups(match))
            if key in found:
                doubled.append((found[key], file))
            found.setdefault(key, file)
    return found, doubled


def _groups(match: re.Match[str]) -> list[tuple[int, str | None]]:
    named = set(match.re.groupindex.values())
    return [(number, text) for number, text in enumerate(match.groups(), 1) if number not in named]


def _expression(pattern: str, known: Mapping[str, str]) -> re.Pattern[str]:
    pattern, suffix = _ending(pattern.removesuffix(".*"))
    out, seen_split = "", False
    for part in re.split(r"(\*\*/|\*|\{split\})", pattern):
        if part == "**/":
            out += "((?:[^/]+/)*)"
        elif part == "*":
            out += "([^/]+?)"
        elif part == "{split}":
            choice = "|".join(re.escape(word) for word in sorted(known, key=len, reverse=True))
            out += "(?P=split)" if seen_split else f"(?P<split>(?i:{choice}))"
            seen_split = True
        else:
            out += re.escape(part)
    return re.compile(out + suffix)


def _ending(pattern: str) -> tuple[str, str]:
    """A pattern without the ending of its files, and an expression for that."""
    ending = next((one for one in IMAGE_SUFFIXES if pattern.lower().endswith(one)), None)
    if ending is None:
        return pattern, _SUFFIX
    same = next((those for those in _SAME if ending in those), (ending,))
    return pattern[: -len(ending)], "(?i:" + "|".join(map(re.escape, same)) + ")"


def pairs(images: Found, masks: Found) -> Pairs:
    """(split, key) -> (image, mask). A mask without a split is for an image of any."""
    return {
        (split, key): (file, masks.get((split, key)) or masks[("", key)])
        for (split, key), file in images.items()
        if (split, key) in masks or ("", key) in masks
    }


@dataclass(frozen=True)
class _Fit:
    """One layout that pairs images with masks."""

    layout: Layout
    source: str
    folder: str
    """Templates of the images' and the masks' folders."""
    pairs: dict[str, str]
    """Image -> mask."""
    named: int
    """How clearly a name says that these are masks: 2, a folder's whole name; 1, part of it, or masks' endings beside
    their images; 0, none."""

    @property
    def home(self) -> str:
        """The folder in which both lie with folders of their own; empty where that is the data's, or a split's."""
        first, _, rest = self.source.partition("/")
        return first if rest and "{" not in first and "*" not in first and self.folder.startswith(f"{first}/") else ""

    def rivals(self, fits: list["_Fit"]) -> list["_Fit"]:
        """Those with masks of another folder for one of the same images, or with both the other way round."""
        return [
            fit
            for fit in fits
            if fit.folder != self.folder
            and (fit.pairs.keys() & self.pairs.keys() or (fit.source, fit.folder) == (self.folder, self.source))
        ]


def find(
    files: list[str], known: Mapping[str, str], predicted: Callable[[str], bool] = lambda _: False
) -> Layout | None:
    """The layout under which most images have a mask; none if none has.

    Where two folders have a mask for the same image, the one whose name says more clearly that it holds masks wins,
    then the one whose word is earlier in `MASK_WORDS`. Files that a model made (`predicted`) are no masks; it is only
    asked of those that come into question.

    Raises:
        DataError: two such folders, neither of which comes first.
    """
    while True:
        fits = _fits(files, known)
        if not fits:
            return None
        best = max(fits, key=lambda fit: len(fit.pairs))
        rivals = best.rivals(fits)
        masks = sorted({mask for fit in (best, *rivals) for mask in fit.pairs.values()})
        with ThreadPoolExecutor(READERS) as pool:
            made = {mask for mask, yes in zip(masks, pool.map(predicted, masks), strict=True) if yes}
        if not made:
            return _first_of(best, rivals, fits)
        files = [file for file in files if file not in made]


def _first_of(best: _Fit, rivals: list[_Fit], fits: list[_Fit]) -> Layout:
    """The layout that wins. Raises `DataError`."""
    named = max(fit.named for fit in (best, *rivals))
    if best.named < named:
        best = max((fit for fit in rivals if fit.named == named), key=lambda fit: len(fit.pairs))
    homes = sorted({fit.home for fit in fits if fit.home and fit.named == named and best.home})
    if len(homes) > 1:
        raise DataError(
            f"there are several sets of images and masks, in {', '.join(homes)}. Name one of these folders as the "
            f"data's (data.root), or say which files are meant, e.g. data.images='{best.layout.images}' "
            f"data.masks='{best.layout.masks}'."
        )
    for other in best.rivals(fits):
        if other.named == named and (named == 0 or _rank(best.folder)[:2] >= _rank(other.folder)[:2]):
            image = next(iter(sorted(best.pairs.keys() & other.pairs.keys())), "")
            whose = f"both have a mask for {image}" if image else "each has a picture for each of the other's"
            raise DataError(
                f"the masks may lie in {best.folder or './'} or in {other.folder or './'}: {whose}, and no name says "
                f"which are the truth. Say it, e.g. data.images='{best.layout.images}' "
                f"data.masks='{best.layout.masks}', or take the other folder out of the data's."
            )
    return best.layout


def _fits(files: list[str], known: Mapping[str, str]) -> list[_Fit]:
    """Every layout that pairs anything, in the order of their words. A folder of images has no masks for others'."""
    templates = _templates(files, known)
    found = {where: matched(files, f"{where}*", known)[0] for where in templates}
    fits = []
    for folder in sorted(templates, key=_rank):
        for source in sorted((where for where, role in templates.items() if role != "mask"), key=_rank):
            if templates[folder] == "image" and not _named(folder, source == folder):
                continue
            for ending in MASK_ENDINGS if folder != source else MASK_ENDINGS[1:]:
                layout = Layout(f"{source}*", f"{folder}*{ending}")
                paired = _paired(found[source], found[folder], ending)
                fits.append(_Fit(layout, source, folder, paired, _named(folder, source == folder)))
    for where in (where for where, role in templates.items() if not role):
        layout = Layout(f"{where}*.jpg", f"{where}*.png")
        both = pairs(*(matched(files, one, known)[0] for one in (layout.images, layout.masks)))
        fits.append(_Fit(layout, where, where, dict(both.values()), 0))
    return [fit for fit in fits if fit.pairs]


def _paired(images: Found, masks: Found, ending: str) -> dict[str, str]:
    """Image -> mask, if masks' names end so."""
    cut = len(ending)
    stems = {
        (split, (*key[:-1], key[-1][: len(key[-1]) - cut])): file
        for (split, key), file in masks.items()
        if key[-1].endswith(ending) and len(key[-1]) > cut
    }
    return {images[stem]: mask for stem, mask in stems.items() if stem in images}


def _named(folder: str, by_ending: bool) -> int:
    """As `_Fit.named`."""
    whole, tokens = _words_in(folder)
    return 2 if whole & set(MASK_WORDS) else 1 if by_ending or tokens & set(MASK_WORDS) else 0


def _words_in(where: str) -> tuple[set[str], set[str]]:
    """The names of the folders on a path, and the parts that `_` and `-` leave of them, in lower case."""
    return set(where.lower().split("/")), set(re.split(r"[/_\-]", where.lower()))


def _rank(where: str) -> tuple[int, int, str]:
    """Known words first, in their order; shallow before deep."""
    tokens = set.union(*_words_in(where))
    order = [*MASK_WORDS, *IMAGE_WORDS]
    return min((order.index(token) for token in tokens if token in order), default=len(order)), where.count("/"), where


def _templates(files: list[str], known: Mapping[str, str]) -> dict[str, str]:
    """Folders with images, `{split}` in place of a split's name, ending in a slash -> `image`, `mask` or nothing."""
    folders = Counter(file.rpartition("/")[0] for file in files)
    return dict(_template(folder, known) for folder in sorted(folders))


def _template(folder: str, known: Mapping[str, str]) -> tuple[str, str]:
    role, parts = "", list[str]()
    for part in folder.split("/") if folder else ():
        tokens = re.split(r"([_\-])", part)
        named = [token for token in tokens if token.lower() in known]
        whole = {"mask": MASK_WORDS, "image": IMAGE_WORDS}
        new = next((name for name, those in whole.items() if {t.lower() for t in (part, *tokens)} & set(those)), "")
        if named and "{split}" not in "/".join(parts) and len(tokens) <= 3:
            parts.append("".join("{split}" if token in named else token for token in tokens))
        elif not new and (role or "{split}" in "/".join(parts)):
            parts.append("*")  # folders inside: cities, sequences
        else:
            parts.append(part)
        role = new or role
    return "".join(f"{part}/" for part in parts), role

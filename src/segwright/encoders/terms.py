"""Origin and licence of the weights that an encoder would be given, told before anything is fetched."""

from dataclasses import dataclass
from pathlib import Path

from segwright.encoders.families import find_family
from segwright.encoders.names import resolve_name, split_tag
from segwright.encoders.own import licence_in
from segwright.encoders.sources import WORDS, asks_published, origin_of, published

UNSTATED = {"unknown", "other"}
"""What timm writes where it knows none."""


@dataclass(frozen=True)
class Terms:
    """What is known of weights by their name alone."""

    origin: str
    """The hub's id, an address or a path."""
    licence: str | None
    """None: nobody states one."""
    is_file: bool = False
    """The user named a file."""


def encoder_terms(name: str, pretrained: bool | int | str | Path | None) -> Terms | None:
    """Terms of the weights that `create_encoder(name, pretrained)` loads; None: random ones.

    Raises:
        ConfigError: no such encoder.
        WeightsError: timm has no such weights.
    """
    resolved = resolve_name(name)
    found = find_family(resolved)
    model, tag = (found[1], None) if found else split_tag(resolved)
    wanted = WORDS.get(str(pretrained).lower(), pretrained)
    if wanted is False or wanted is None:
        return None
    if not asks_published(model, wanted):
        stated = found[0].licence if found else None
        return Terms(str(wanted), stated or licence_in(Path(str(wanted)).expanduser()), is_file=True)
    if found:
        return Terms(found[0].title, found[0].licence)
    cfg = published(model, tag if wanted is True else str(wanted))
    return Terms(origin_of(cfg), None if cfg.license in UNSTATED else cfg.license)

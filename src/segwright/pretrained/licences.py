"""Under which licence the first weights are, what a run writes down about them, and the refusal of `--commercial`.

A licence is told by name, before anything is fetched: by timm for its own models, by us for NVIDIA's SegFormers and the
files of RETFound and VisionFM. It is the licence of the weights, not of the images that they were trained on.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from segwright.encoders import Encoder, Terms, encoder_terms, resolve_name
from segwright.encoders.mit_variants import VARIANTS
from segwright.encoders.names import split_tag
from segwright.errors import ConfigError
from segwright.pretrained.whole import ADE20K, LICENCE

PERMISSIVE = frozenset({"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0"})
"""Licences, as timm writes them, that allow commercial use on no other terms than naming the authors."""
FORBIDDING = re.compile(r"\bnc\b|non-?commercial|\bamlr\b", re.IGNORECASE)
"""What a licence that forbids commercial use calls itself; amlr: Apple's for research alone."""
INSTEAD = ("pvt_v2_b0", "vit_small_patch14_dinov2")
"""Encoders whose default weights are under Apache-2.0: one of the Mix Transformer's kind and size, and a plain ViT."""


def terms_of(encoder: str, pretrained: Any) -> Terms | None:
    """Terms of the weights that `choose_weights` and `create_encoder` would load; None: random ones."""
    model, _ = split_tag(resolve_name(encoder))
    if pretrained == "ade20k" and model in ADE20K:
        return Terms(ADE20K[model], LICENCE)
    return encoder_terms(encoder, True if pretrained == "imagenet" and model in VARIANTS else pretrained)


def refuse_non_commercial(encoder: str, pretrained: Any, statement: str | None) -> None:
    """Raises `ConfigError` where the weights' licence forbids commercial use, has terms of its own, or is not known.

    `statement`: what the user says of weights whose licence nobody states, or the name of a licence with terms of its
    own, to which he keeps.
    """
    terms = terms_of(encoder, pretrained)
    if terms is None:
        return
    licence = terms.licence or statement
    agreed = statement is not None and licence is not None and statement.lower() == licence.lower()
    if licence is not None and not FORBIDDING.search(licence) and (agreed or licence.lower() in PERMISSIVE):
        return
    raise ConfigError(
        f"run.commercial is set, but the weights '{terms.origin}' {_objection(licence, terms)}, or take an encoder "
        f"with weights under Apache-2.0, e.g. encoder.name={INSTEAD[0]} or {INSTEAD[1]}, or random weights "
        "(encoder.pretrained=0)."
    )


def _objection(licence: str | None, terms: Terms) -> str:
    """Why not, and what would help."""
    if licence is None:
        where = "a file does not say its licence" if terms.is_file else "nobody states their licence"
        return f"may be under any licence: {where}. Find it out and set encoder.licence to it"
    if FORBIDDING.search(licence):
        return f"are under '{licence}', which forbids commercial use. Get other weights"
    return f"are under '{licence}', which has terms of its own. Read it, and set encoder.licence='{licence}' to keep it"


def weights_record(encoder: Encoder, statement: str | None) -> dict[str, Any]:
    """What a run writes down: origin and licence of the first weights, and the SHA-256 of a file; of a run's
    checkpoint also what that run wrote down."""
    if encoder.origin == "random":
        return {"origin": "random", "licence": None}
    record = {"origin": encoder.origin, "licence": encoder.licence or statement}
    path = Path(encoder.origin)
    record |= {"sha256": checksum(path)} if path.is_file() else {}
    return record | ({"trained_from": encoder.trained_from} if encoder.trained_from is not None else {})


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

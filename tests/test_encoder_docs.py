"""What docs/encoders.md says of encoders is what they are."""

import re
from pathlib import Path

import pytest
import torch

from segwright.encoders import create_encoder
from segwright.pretrained.licences import terms_of

PAGE = (Path(__file__).parents[1] / "docs" / "encoders.md").read_text()
ROW = r"^\| `(\w+)` \| ([\d,]+) \| ([\d, ]+) \| (?:`(\S+)`|by path) \| (.+) \|$"
ROWS = re.findall(ROW, PAGE, re.MULTILINE)
PYRAMIDS = dict(re.findall(r"([\d,]+) (?:parameters )?for a (small|base|large)", PAGE.replace(" one", "")))


def test_the_tables_are_found():
    assert len(ROWS) == PAGE.count("\n| `") - PAGE.count("\n| `encoder.name`") >= 30
    assert sorted(PYRAMIDS.values()) == ["base", "large", "small"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parameters", "channels", "origin", "licence"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_says_what_the_encoder_is(name, parameters, channels, origin, licence):
    with torch.device("meta"):
        encoder = create_encoder(name)
    vit = getattr(encoder.net, "vit", None)
    assert f"{sum(p.numel() for p in (vit or encoder).parameters()):,}" == parameters
    assert ", ".join(map(str, encoder.channels)) == channels
    assert encoder.strides == (4, 8, 16, 32)
    if vit is not None:
        assert f"{sum(p.numel() for p in encoder.net.pyramid.parameters()):,}" in PYRAMIDS
    # by the tag, since another version of timm may have another default
    named = origin.removeprefix("timm/") if origin.startswith("timm/") else name
    terms = terms_of(named, True if origin else "file.pth")
    assert (origin or "file.pth") == terms.origin
    assert terms.licence.startswith("NVIDIA") if licence == "NVIDIA, non-commercial" else terms.licence == licence

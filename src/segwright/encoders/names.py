"""What an encoder may be called: timm's names, aliases that people use for some of them, and families of files."""

import re

import timm

from segwright.encoders.families import FAMILIES, find_family
from segwright.encoders.outside import import_outside
from segwright.errors import ConfigError, nearest

ALIASES = {
    **{f"segformer_b{size}": f"mit_b{size}" for size in range(6)},
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "maxvit_tiny": "maxvit_tiny_tf_384",
}


def split_tag(name: str) -> tuple[str, str | None]:
    """`convnext_tiny.fb_in1k` -> (`convnext_tiny`, `fb_in1k`); without a tag, None."""
    model, _, tag = name.partition(".")
    return model, tag or None


def tags_of(model: str) -> list[str]:
    """The tags of a model's pretrained weights that timm knows, its default first."""
    listed = timm.list_models(f"{model}.*", pretrained=True, include_tags=True)
    tags = [name.partition(".")[2] for name in listed]
    default = timm.get_pretrained_cfg(model)
    return sorted(tags, key=lambda tag: tag != getattr(default, "tag", None))


def resolve_name(name: str) -> str:
    """timm's name of an encoder, aliases resolved: `segformer_b0`, `mit-b0` -> `mit_b0`. A tag stays: `mit_b0.in1k`.

    A family of files (`retfound`, `visionfm_oct`) keeps its own name.

    Raises:
        ConfigError: timm knows no model of that name, or no weights of that tag; offers the nearest.
    """
    model, tag = split_tag(name.strip())
    plain = re.sub(r"^(mit|segformer)-(?=b\d$)", r"\1_", model)
    plain = ALIASES.get(plain, plain)
    if find_family(plain):
        if tag is not None:
            raise ConfigError(
                f"'{plain}' has no tags, so '{tag}' means nothing. Give the path of a file as `pretrained`."
            )
        return plain
    if not timm.is_model(plain):
        import_outside()
    if not timm.is_model(plain):
        known = [*timm.list_models(), *ALIASES, *FAMILIES]
        raise ConfigError(f"no encoder is called '{model}'.{nearest(model, known)}")
    if tag is None:
        return plain
    if tag not in tags_of(plain):
        raise ConfigError(f"the encoder '{plain}' has no weights with the tag '{tag}'.{nearest(tag, tags_of(plain))}")
    return f"{plain}.{tag}"

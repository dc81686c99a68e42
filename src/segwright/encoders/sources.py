"""Where an encoder's first weights come from: random, a file, timm's cache, or the hub, if it can be reached.

timm asks an unreachable hub for about 46 s before it gives up, and asks it even for files that lie in the cache. So the
cache is looked up first, and the host is asked once, with a short limit.
"""

import logging
import ssl
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import timm
import torch

from segwright.encoders.names import tags_of
from segwright.encoders.own import OwnWeights, own_weights
from segwright.encoders.weights import read_file, tensors_in
from segwright.errors import WeightsError, nearest

log = logging.getLogger("segwright")

PROBE_S = 3.0
"""How long a host may take to answer before it counts as out of reach; a TLS handshake across the world takes < 1 s."""

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm looks for in a repository of the hub, in this order."""

WORDS: dict[str, bool] = {"": False, "0": False, "false": False, "none": False, "1": True, "true": True}


@dataclass(frozen=True)
class Source:
    """What `timm.create_model` is to be told, and what is to be written down about the weights."""

    origin: str = "random"
    """`random`, the hub's id, an address or a path."""
    licence: str | None = None
    """As timm states it. None: random weights, or not known."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """For `timm.create_model`."""
    is_file: bool = False
    """The user named a file, which has to fit in full."""
    own: OwnWeights | None = None
    """A checkpoint of ours, which the finished encoder is filled from."""


def find_source(name: str, tag: str | None, pretrained: bool | int | str | Path | None) -> Source:
    """The source of the weights of timm's model `name`; `tag` holds where `pretrained` names none.

    Out of reach: one warning, and random weights.

    Raises:
        WeightsError: there are no such weights, or no such file, it cannot be read, or is another encoder's checkpoint.
    """
    wanted = WORDS.get(str(pretrained).lower(), pretrained)
    if wanted is False or wanted is None:
        return Source(arguments={"pretrained_cfg": tag})
    if wanted is True or wanted in tags_of(name):
        return _published(name, tag if wanted is True else str(wanted))
    path = Path(str(wanted)).expanduser()
    if not path.exists():
        known = tags_of(name)
        raise WeightsError(
            f"pretrained is '{wanted}', which is neither a file nor a tag of '{name}'."
            f"{nearest(str(wanted), known) if known else ''} Give 0, 1, a tag or the path of a file."
        )
    found = read_file(path)
    if (own := own_weights(found, path)) is not None:
        own.refuse_other(name)
        return Source(str(path), own.licence, {"pretrained_cfg": tag}, own=own)
    tensors_in(found, f"'{path}'")
    arguments = {"pretrained": True, "pretrained_cfg": tag, "pretrained_cfg_overlay": _file(path)}
    return Source(str(path), None, arguments, is_file=True)


def asks_published(name: str, pretrained: bool | int | str | Path | None) -> bool:
    """Whether `pretrained` means weights that timm knows for its model `name`: True, 1, or a tag."""
    wanted = WORDS.get(str(pretrained).lower(), pretrained)
    return wanted is True or wanted in tags_of(name)


def _file(path: Path) -> dict[str, Any]:
    """What timm is to replace in its own description of the weights."""
    return {"file": str(path), "hf_hub_filename": None, "custom_load": False}


def _published(name: str, tag: str | None) -> Source:
    """Weights that timm knows."""
    cfg = published(name, tag)
    origin = origin_of(cfg)
    arguments: dict[str, Any] = {"pretrained": True, "pretrained_cfg": cfg.tag}
    cached = _cached(cfg)
    if cached is not None and not cfg.custom_load:
        arguments["pretrained_cfg_overlay"] = _file(cached)
    elif cached is None and (reason := _out_of_reach(cfg)):
        return out_of_reach(name, origin, reason, cfg.tag)
    return Source(origin, cfg.license, arguments)


def published(name: str, tag: str | None) -> Any:
    """What timm says of these weights. `WeightsError`: it has none."""
    cfg = timm.get_pretrained_cfg(f"{name}.{tag}" if tag else name)
    if cfg is None or not cfg.has_weights:
        raise WeightsError(
            f"timm has no pretrained weights for '{name}'. Use pretrained=0, or give the path of a file."
        )
    return cfg


def origin_of(cfg: Any) -> str:
    """The hub's id of weights that timm knows, or their address."""
    return cfg.hf_hub_id or (cfg.url if isinstance(cfg.url, str) else str(cfg.url))


def out_of_reach(name: str, origin: str, reason: str, tag: str | None) -> Source:
    """Says that the weights cannot be had; random weights, with the mean and std that the tag states."""
    log.warning(
        "The pretrained weights '%s' of the encoder '%s' cannot be reached (%s); it starts from random weights. "
        "Connect to the network, or download the file elsewhere and give its path as `pretrained`.",
        origin,
        name,
        reason,
    )
    return Source(arguments={"pretrained_cfg": tag})


def _cached(cfg: Any) -> Path | None:
    """The weight file, if an earlier download left it here."""
    if not cfg.hf_hub_id:
        address = cfg.url if isinstance(cfg.url, str) else cfg.url[0]
        path = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(address).path).name)
        return path if path.is_file() else None
    repository, _, revision = cfg.hf_hub_id.partition("@")
    for filename in (cfg.hf_hub_filename,) if cfg.hf_hub_filename else HUB_FILES:
        found = huggingface_hub.try_to_load_from_cache(repository, filename, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None


def _out_of_reach(cfg: Any) -> str | None:
    """Why the weights' host cannot be asked; None if it answers."""
    if not cfg.hf_hub_id:
        address = urlsplit(cfg.url if isinstance(cfg.url, str) else cfg.url[0])
        return unreachable(f"{address.scheme}://{address.netloc}")
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and they are not in the cache"
    return unreachable(huggingface_hub.constants.ENDPOINT)


def unreachable(address: str, limit_s: float = PROBE_S) -> str | None:
    """Why nothing answers at `address`; None if something does, whatever it says. The environment's proxies are used.

    In a thread of its own, since looking up a host's name keeps to no limit.
    """
    if any(proxy.startswith("socks") for proxy in urllib.request.getproxies().values()):
        return None  # urllib cannot speak to these, but the hub's client may
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(_ask(address, limit_s)), daemon=True)
    thread.start()
    thread.join(limit_s)
    return answers[0] if answers else f"{urlsplit(address).netloc} gave no answer within {limit_s:g} s"


def _ask(address: str, limit_s: float) -> str | None:
    host = urlsplit(address).netloc
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=limit_s).close()
    except urllib.error.HTTPError as error:
        error.close()  # an answer all the same
    except urllib.error.URLError as error:
        # certificates may be known to the hub's client alone (REQUESTS_CA_BUNDLE)
        return None if isinstance(error.reason, ssl.SSLError) else f"{host}: {error.reason}"
    except OSError as error:
        return f"{host}: {error}"
    return None

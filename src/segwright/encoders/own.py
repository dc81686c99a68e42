"""A run's own checkpoint as first weights of the next run: its encoder in full, with what it records of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segwright import checkpoint
from segwright.encoders.families import find_family
from segwright.encoders.names import resolve_name, split_tag
from segwright.encoders.weights import read_file, some_of
from segwright.errors import ConfigError, WeightsError

PART = "encoder."
"""Before the names of an encoder's tensors in a checkpoint."""
FREE = "net.pyramid."
"""Before those of a plain ViT's pyramid, which another run may have with other levels, or not at all."""
ADAPTER = ".lora_"
"""In the names of LoRA's tensors."""


@dataclass(frozen=True)
class OwnWeights:
    """What a checkpoint of ours holds for an encoder."""

    path: Path
    encoder: str
    """Its name in the run's config."""
    tensors: dict[str, Tensor]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    """Origin and licence of the weights that this run began with."""

    @property
    def licence(self) -> str | None:
        """What the run began with is under it, and so is what came of that."""
        return self.record.get("licence")

    def refuse_other(self, name: str) -> None:
        """Raises `WeightsError` unless timm's model `name` is the run's."""
        if _model(self.encoder) != name:
            raise WeightsError(
                f"the checkpoint {self.path} was made with the encoder '{self.encoder}', and this run has '{name}'. "
                f"Set --encoder {self.encoder}, or give weights of '{name}'."
            )

    def fill(self, net: nn.Module) -> None:
        """Puts them into an encoder. Raises `WeightsError`: a tensor that is missing, not known or of another shape."""
        wanted = net.state_dict()
        missing = [key for key in wanted if key not in self.tensors and not key.startswith(FREE)]
        unknown = [key for key in self.tensors if key not in wanted and not key.startswith(FREE)]
        wrong = {key for key, tensor in self.tensors.items() if key in wanted and tensor.shape != wanted[key].shape}
        shapes = [f"{key} {tuple(self.tensors[key].shape)} instead of {tuple(wanted[key].shape)}" for key in wrong]
        shapes = [text for text in sorted(shapes) if not text.startswith(FREE)]
        found = {"missing": missing, "not known": unknown, "of another shape": shapes}
        if any(found.values()):
            said = "; ".join(f"{len(keys)} {what}: {some_of(keys)}" for what, keys in found.items() if keys)
            raise WeightsError(
                f"the encoder in the checkpoint {self.path} is '{self.encoder}' with other options: tensors {said}. "
                "Give this run the encoder section of the config.yaml that lies beside it."
            )
        net.load_state_dict({k: v for k, v in self.tensors.items() if k in wanted and k not in wrong}, strict=False)


def own_weights(found: Any, path: Path) -> OwnWeights | None:
    """Those in what was read from a file; None: it is no checkpoint of ours.

    Raises:
        WeightsError: it holds adapters beside the weights.
    """
    if not checkpoint.is_ours(found):
        return None
    if any(ADAPTER in key for key in found["model"]):
        raise WeightsError(
            f"the checkpoint {path} holds LoRA adapters beside its weights. Add them to the weights with "
            f"segwright export --format merged --weights {path} --output NEW, and give the merged.pth in there."
        )
    return OwnWeights(
        path=path,
        encoder=str(found["config"].get("encoder", {}).get("name")),
        tensors={key.removeprefix(PART): t for key, t in found["model"].items() if key.startswith(PART)},
        mean=tuple(found["mean"]),
        std=tuple(found["std"]),
        record=dict(found.get("weights") or {}),
    )


def licence_in(path: Path) -> str | None:
    """The licence that a checkpoint of ours records; None: none, or the file is another."""
    if not path.is_file() or path.suffix == ".safetensors":
        return None
    try:
        own = own_weights(read_file(path), path)
    except WeightsError:  # a run that goes on needs the file no more; one that begins is told when it loads it
        return None
    return own.licence if own else None


def _model(name: str) -> str:
    """timm's name of the model behind an encoder's."""
    try:
        resolved = resolve_name(name)
    except ConfigError:  # of a package that is not installed here
        return name
    family = find_family(resolved)
    return family[1] if family else split_tag(resolved)[0]

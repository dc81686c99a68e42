"""A whole SegFormer as a folder in Hugging Face's layout, which transformers reads and writes too.

config.json says what the model is like, model.safetensors (or pytorch_model.bin) holds the weights by the hub's names,
preprocessor_config.json how an image is resized and normalised.
Names: https://huggingface.co/docs/transformers/model_doc/segformer
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from segwright.encoders import Encoder, create_encoder
from segwright.encoders.layouts import HUGGING_FACE, from_mit
from segwright.encoders.mit import MLP_RATIO, NUM_HEADS, REDUCTIONS, MixTransformer
from segwright.encoders.mit_variants import VARIANTS
from segwright.encoders.sources import HUB_FILES
from segwright.encoders.weights import read_weights
from segwright.errors import ConfigError, WeightsError
from segwright.files import draft_folder, write_bytes, write_text
from segwright.heads.segformer import SegformerHead
from segwright.heads.segformer_mmseg import SegformerMmsegHead
from segwright.heads.segformer_weights import HUGGING_FACE as HEAD_NAMES
from segwright.heads.segformer_weights import from_head
from segwright.pretrained.hub import REPOSITORY, OutOfReachError, hub_file
from segwright.pretrained.whole import LICENCE, Whole, weight_file

CONFIG, PREPROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
SHAPE: dict[str, list[int]] = {
    "patch_sizes": [7, 3, 3, 3],
    "strides": [4, 2, 2, 2],
    "sr_ratios": list(REDUCTIONS),
    "num_attention_heads": list(NUM_HEADS),
    "mlp_ratios": [MLP_RATIO] * 4,
}
"""What all published Mix Transformers have in common, in Hugging Face's words."""


def read_folder(source: str | Path) -> tuple[Encoder, SegformerHead, tuple[str, ...]]:
    """Encoder, head and the classes' names, from a folder or an id of the hub (owner/name).

    Raises:
        WeightsError: neither; the hub cannot be reached; another kind of model; weights that do not fit the config.
    """
    config_path, weights_path, preprocessor = _files(source)
    config = _json(config_path)
    name = _variant(config, source)
    licence = LICENCE if str(source).startswith("nvidia/segformer-") else None
    whole = Whole(read_weights(weights_path), str(source), licence)
    encoder = create_encoder(
        name, in_channels=config.get("num_channels", 3), drop_path_rate=config.get("drop_path_rate")
    )
    head = SegformerHead(
        encoder.channels,
        whole.num_classes,
        config.get("decoder_hidden_size", 256),
        config.get("classifier_dropout_prob", 0.1),
    )
    whole.fill(encoder, head)
    if preprocessor is not None:
        values = _json(preprocessor)
        encoder.mean = tuple(values.get("image_mean", encoder.mean))
        encoder.std = tuple(values.get("image_std", encoder.std))
    return encoder, head, _classes(config, whole.num_classes)


def _files(source: str | Path) -> tuple[Path, Path, Path | None]:
    """config.json, the weights and, if there is one, preprocessor_config.json."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise WeightsError(
                f"the folder {folder} holds no {CONFIG}, so it is not in Hugging Face's layout. Give one that "
                "save_pretrained wrote, or name a weight file alone with encoder.pretrained."
            )
        optional = folder / PREPROCESSOR
        return folder / CONFIG, weight_file(folder), optional if optional.is_file() else None
    if folder.exists() or not REPOSITORY.fullmatch(str(source)):
        raise WeightsError(
            f"'{source}' is neither a folder in Hugging Face's layout nor an id of its hub (owner/name). The best.pth "
            "of a run is read by segwright.load; other weight files are named with encoder.pretrained."
        )
    try:
        return hub_file(str(source), [CONFIG]), hub_file(str(source), HUB_FILES), _optional(str(source), PREPROCESSOR)
    except OutOfReachError as error:
        raise WeightsError(
            f"'{source}' is no folder here, and the Hugging Face hub cannot be reached ({error}). Connect to the "
            "network, or download the folder elsewhere and give its path."
        ) from None


def _optional(repository: str, name: str) -> Path | None:
    try:
        return hub_file(repository, [name])
    except WeightsError:
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}. Get it again.") from None


def _variant(config: Mapping[str, Any], source: str | Path) -> str:
    """The Mix Transformer that a config.json describes."""
    if config.get("model_type") != "segformer":
        raise WeightsError(
            f"{source} is a '{config.get('model_type')}' model, not 'segformer'. Choose a SegFormer, or name the "
            "encoder with encoder.name."
        )
    first = VARIANTS["mit_b0"]  # transformers' defaults, which older files leave out
    widths, depths = config.get("hidden_sizes", first["widths"]), config.get("depths", first["depths"])
    for name, variant in VARIANTS.items():
        same = list(variant["widths"]) == list(widths) and list(variant["depths"]) == list(depths)
        if same and all(list(config.get(key, value)) == value for key, value in SHAPE.items()):
            return name
    raise WeightsError(
        f"{source} has widths {list(widths)}, depths {list(depths)} and {[config.get(key, 'none') for key in SHAPE]} "
        f"as {', '.join(SHAPE)}, which is none of the published {', '.join(VARIANTS)}. Choose one of those."
    )


def _classes(config: Mapping[str, Any], num_classes: int) -> tuple[str, ...]:
    labels = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
    return tuple(labels.get(index, f"class_{index}") for index in range(num_classes))


def write_folder(
    folder: str | Path, encoder: Encoder, head: nn.Module, classes: Sequence[str], size: tuple[int, int]
) -> Path:
    """Writes a whole SegFormer; `size` is what an image is resized to, (height, width). Gives the folder.

    An earlier one in that folder is replaced when all of this one is written.

    Raises:
        ConfigError: it is no Mix Transformer with SegFormer's head, or `classes` are not as many as it has.
        SegwrightError: the folder cannot be written.
    """
    folder = Path(folder)
    if isinstance(head, SegformerMmsegHead):
        raise ConfigError(
            "the head is segformer_mmseg, mmsegmentation's own, whose projections have a batch norm and a ReLU each; "
            "Hugging Face's layout has no place for them, and its SegFormer is another function. Train with the head "
            "segformer for that layout; the run's best.pth is read by segwright.load as it is."
        )
    net = getattr(encoder.net, "model", None)
    if not isinstance(net, MixTransformer) or not isinstance(head, SegformerHead) or len(encoder.channels) != 4:
        raise ConfigError(
            f"Hugging Face's layout is for whole SegFormers, and this is {encoder.name} with a {type(head).__name__}. "
            "Train a model.name of segformer_b0 ... segformer_b5 (a LoRA merged first), or export with --format onnx."
        )
    if len(classes) != head.classifier.out_channels:
        raise ConfigError(
            f"{len(classes)} classes are named, but the model has {head.classifier.out_channels}. Name each of them."
        )
    tensors = from_mit(net.state_dict(), HUGGING_FACE, "segformer.")
    tensors |= from_head(head.state_dict(), HEAD_NAMES, "decode_head.")
    whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with draft_folder(folder) as draft:
        write_bytes(draft / WEIGHTS, save(whole, {"format": "pt"}))
        write_text(draft / CONFIG, json.dumps(_config(encoder, net, head, classes), indent=2))
        write_text(draft / PREPROCESSOR, json.dumps(_preprocessor(encoder, size), indent=2))
    return folder


def _config(encoder: Encoder, net: MixTransformer, head: SegformerHead, classes: Sequence[str]) -> dict[str, Any]:
    variant = VARIANTS[encoder.name]
    last = net.get_submodule("block4")[-1].drop_path  # type: ignore[index]
    return {
        "model_type": "segformer",
        "architectures": ["SegformerForSemanticSegmentation"],
        "num_channels": encoder.in_channels,
        "num_encoder_blocks": 4,
        "hidden_sizes": list(variant["widths"]),
        "depths": list(variant["depths"]),
        **SHAPE,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "drop_path_rate": getattr(last, "drop_prob", 0.0),
        "decoder_hidden_size": head.width,
        "classifier_dropout_prob": head.dropout.p,
        "semantic_loss_ignore_index": 255,
        "id2label": {str(index): name for index, name in enumerate(classes)},
        "label2id": {name: index for index, name in enumerate(classes)},
    }


def _preprocessor(encoder: Encoder, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": True,
        "size": {"height": size[0], "width": size[1]},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(encoder.mean),
        "image_std": list(encoder.std),
        "do_reduce_labels": False,
    }

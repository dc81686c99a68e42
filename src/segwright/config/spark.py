"""The SPARK SegFormer recipe's YAML in our own keys: a table, and what its file says without saying it.

Its sections are `model` (variant, pretrained, freeze_backbone) and `training`, and `save_path` stands at the top.
"""

from typing import Any

KEYS: dict[str, tuple[str, ...]] = {
    "model.variant": ("model.name",),
    "model.pretrained": ("encoder.pretrained",),
    "model.freeze_backbone": ("train.freeze_encoder",),
    "training.image_size": ("input.size",),
    "training.optimizer.type": ("optim.name",),
    "training.optimizer.lr": ("optim.lr", "optim.lr_encoder"),
    "training.optimizer.weight_decay": ("optim.weight_decay",),
    "training.loss.type": ("loss.name",),
    "training.zero_stage": ("train.distributed",),
    "save_path": ("run.output",),
}
"""Its key -> ours. It has one learning rate, for head and encoder alike."""
REST: dict[str, str] = {"training.loss": "loss"}
"""Where keys that the table does not know are keys of ours: the loss's own."""
VALUES: dict[str, dict[Any, Any]] = {
    "model.variant": {f"b{number}": f"segformer_b{number}" for number in range(6)},
    "training.zero_stage": {0: "auto", 1: "auto_zero1", 2: "auto_zero2"},
}
"""All values of a key that we call otherwise."""
PLACE = {"output": "model_weights_{name}", "best_as": "segformer_best"}
"""Of section `run`, in a whole file that names a variant: where its runs lie, and what the best weights are called."""

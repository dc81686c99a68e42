"""The ARTeFACT pipeline's YAML in our own keys: a table.

Its sections are `training`, `loss`, `optimizer` and `scheduler`; `loss` is ours, too, but for three of its keys.
"""

KEYS: dict[str, tuple[str, ...]] = {
    "training.learning_rate": ("optim.lr", "optim.lr_encoder"),
    "training.mixed_precision": ("train.amp",),
    "loss.type": ("loss.name",),
    "loss.focal_gamma": ("loss.gamma",),
    "loss.focal_alpha": ("loss.alpha",),
    "optimizer.type": ("optim.name",),
    "scheduler.type": ("schedule.name",),
}
"""Its key -> ours. It has one learning rate, for head and encoder alike."""
REST: dict[str, str] = {"scheduler": "schedule"}
"""Where keys that the table does not know are keys of ours: `max_lr` is the schedule's own."""

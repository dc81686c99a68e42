"""MLflow and Weights & Biases, through Accelerate."""

from importlib import import_module
from pathlib import Path
from typing import Any

from accelerate import tracking

from segwright.errors import MissingPackageError

EXPERIMENT = "segwright"
"""What trackers file our runs under, unless their own environment variables say otherwise."""


class Tracker:
    """A run that a service keeps; `id` is the service's name for it."""

    def __init__(self, theirs: Any, identity: str) -> None:
        self._theirs, self.id = theirs, identity

    def log(self, values: dict[str, float], step: int | None) -> None:
        """The numbers of one epoch."""
        self._theirs.log(values, step=step)

    def finish(self) -> None:
        """Ends the service's run."""
        self._theirs.finish()


def start_tracker(name: str, folder: Path, config: dict[str, Any], known: str | None = None) -> Tracker:
    """MLflow's or W&B's keeping of a run, through Accelerate. `known`: the id of a run that goes on.

    Raises:
        MissingPackageError: the service's package is not installed.
    """
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        raise MissingPackageError(name, f"run.tracker={name}") from error
    if name == "mlflow":
        theirs: Any = tracking.MLflowTracker(EXPERIMENT, run_name=folder.name, run_id=known)
    else:
        resume = "must" if known else None
        theirs = tracking.WandBTracker(EXPERIMENT, name=folder.name, dir=str(folder), id=known, resume=resume)
    theirs.start()
    if known is None:
        theirs.store_init_configuration(config)
    return Tracker(theirs, theirs.tracker.info.run_id if name == "mlflow" else theirs.tracker.id)

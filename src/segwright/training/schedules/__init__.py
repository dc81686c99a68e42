"""The catalogue of learning-rate schedules. Each part's `build(config, optimizer, total_steps, epoch_steps)` gives an
object with `per_step: bool`, `step(score)` and a state dict. Most look at the run's end, so that the number of epochs
cannot change on the way; a module that says `LOOKS_AT_THE_END = False` does not."""

from segwright.registry import Catalogue
from segwright.training.schedules import cosine, onecycle, plateau, poly

SCHEDULES = Catalogue("schedules", {"plateau": plateau, "onecycle": onecycle, "poly": poly, "cosine": cosine})

__all__ = ["SCHEDULES"]

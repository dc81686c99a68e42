"""The catalogue of learning-rate schedules. Each part's `build(config, optimizer, total_steps)` gives an object with
`per_step: bool`, `step(score)` and a state dict."""

from segwright.registry import Catalogue
from segwright.training.schedules import onecycle, plateau

SCHEDULES = Catalogue("schedules", {"plateau": plateau, "onecycle": onecycle})

__all__ = ["SCHEDULES"]

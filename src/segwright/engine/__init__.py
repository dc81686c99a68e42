"""Where a run computes: device, precision, memory, and how several processes share it.

The only room that knows Accelerate (and DeepSpeed). Whatever the launcher and the environment say, the number of
processes, the kind of sharing and the precision are those that were asked for, or the run stops.
"""

from segwright.engine.engine import Engine
from segwright.engine.trackers import Tracker, start_tracker

__all__ = ["Engine", "Tracker", "start_tracker"]

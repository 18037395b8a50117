"""What a training step takes, in bounded memory."""

import statistics
from typing import Any

WARM_UP = 5  # steps after each start: caches fill, algorithms are chosen, workers start
CAPACITY = 1000


class StepTimes:
    """The median wall clock of a training step, over evenly spaced steps of a whole run.

    Every step is kept until there are too many; then every second one is dropped, and from there on
    only every second one is kept, and so on.

    Args:
        state: the attribute of the same name before a resume; None starts anew.

    Attributes:
        state: plain values for a checkpoint, always up to date.
    """

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state = state or {"seconds": [], "stride": 1, "count": 0}
        self._warm_up = WARM_UP

    def add(self, seconds: float) -> None:
        """Take in the next step; the first few after a start do not count."""
        if self._warm_up:
            self._warm_up -= 1
            return
        kept, stride = self.state["seconds"], self.state["stride"]
        if self.state["count"] % stride == 0:
            kept.append(seconds)
        self.state["count"] += 1
        if len(kept) > CAPACITY:
            self.state.update(seconds=kept[::2], stride=2 * stride)

    def median(self) -> float | None:
        """Return the median in seconds; None before a step that counts."""
        return statistics.median(self.state["seconds"]) if self.state["seconds"] else None

"""Count the work of an estimator in frames, to show progress."""

from collections.abc import Callable

OnFrames = Callable[[int], object]
"""Called with a number of frames that are done, which may be 0."""


def report_nothing(frames: int) -> None:
    """Ignore progress."""


class FrameCounter:
    """Turns steps, each a part of the work of some frames, into whole frames."""

    def __init__(
        self,
        on_frames: OnFrames,
        steps_per_frame: int,
        steps: int = 0,  # that are done already
    ) -> None:
        self._on_frames, self._steps_per_frame, self._steps = on_frames, steps_per_frame, steps
        self._reported = 0

    def add_steps(self, frames: int, steps: int = 1) -> None:
        """Count steps of so many frames."""
        self._steps += frames * steps
        whole = self._steps // self._steps_per_frame
        self._on_frames(whole - self._reported)
        self._reported = whole

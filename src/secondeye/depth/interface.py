"""The types that every depth estimator shares."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from secondeye.depth.progress import OnFrames


class DepthState(NamedTuple):
    """What an estimator carries through a shot; it can be saved to continue the shot in another process."""

    next_frame: int
    """The first frame without an estimate, counted from the start of the shot."""
    first_frame: int
    """The frame at which the windows must begin to continue: before `next_frame`, since estimators look back
    at a few frames, or after it, if frames in between are in the state."""
    tensors: Mapping[str, Tensor]
    """By name; private to the estimator."""


class DepthEstimate(NamedTuple):
    """Depth of a few consecutive frames of one shot."""

    depth: Tensor
    """[t, 1, h, w] raw relative inverse depth, finite, larger is nearer; at most H x W, same aspect."""
    confidence: float
    """[0, 1]: how reliable the depth is; 1 for Depth Anything."""
    state: DepthState
    """The state after these frames."""


class DepthEstimator(Protocol):
    """Estimates the depth of the frames of one shot, or of the rest of one from a state.

    Windows are [t, 3, H, W] in [0, 1] or uint8 [t, H, W, 3], in order, from `state.first_frame` on;
    estimates begin at `state.next_frame`, and are the same bytes whether the shot was interrupted or not.
    Windows and estimates may differ in length. An estimator looks a bounded number of frames ahead.
    """

    def __call__(
        self, windows: Iterable[Tensor], state: DepthState | None = None
    ) -> Iterator[DepthEstimate]: ...


@runtime_checkable
class SmallFrameEstimator(DepthEstimator, Protocol):
    """An estimator that works on small frames, which a decoder returns faster than whole ones."""

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width to which frames of this size may be reduced."""


@runtime_checkable
class MemoryCheckedEstimator(DepthEstimator, Protocol):
    """An estimator whose need of memory depends on the frames' size."""

    def require_memory(self, height: int, width: int) -> None:
        """Raise UserError unless the memory suffices for frames of this size."""


@runtime_checkable
class SteppedEstimator(DepthEstimator, Protocol):
    """An estimator that computes many frames together, in steps that may take minutes on a CPU."""

    def reporting(self, on_frames: OnFrames) -> DepthEstimator:
        """Return an equal estimator that calls `on_frames` after each step, to show progress.

        It gets the number of frames that the step is worth, in all the number of frames that are returned.
        """


FAR_QUANTILE, NEAR_QUANTILE = 0.01, 0.99  # of a shot's raw depth, mapped to 0 and 1: ignores outliers

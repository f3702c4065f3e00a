"""The arrays of held-out clips, as every method gets them."""

from typing import NamedTuple

from torch import Tensor

from secondeye.dataset.reader import Dataset, DatasetClip


class EvalFrames(NamedTuple):
    """The arrays of one held-out clip."""

    left: Tensor  # [T, 3, H, W]
    right: Tensor  # [T, 3, H, W]: the true right view
    disparity: Tensor  # [T, 1, H, W] px of the left view, as matched
    regions: Tensor  # uint8 [T, 1, H, W]: evaluation.regions


def load_clip(dataset: Dataset, clip: DatasetClip, max_frames: int) -> EvalFrames:
    """Load the first `max_frames` frames of a clip."""
    left, right = dataset.views(clip)
    arrays = left, right, dataset.disparity(clip), dataset.regions(clip)
    return EvalFrames(*(array[:max_frames] for array in arrays))


def load_middle_frame(dataset: Dataset, clip: DatasetClip, max_frames: int) -> EvalFrames:
    """Load the middle one of the first `max_frames` frames, which contact sheets show."""
    frames = load_clip(dataset, clip, max_frames)
    middle = len(frames.left) // 2
    return EvalFrames(*(array[middle : middle + 1] for array in frames))

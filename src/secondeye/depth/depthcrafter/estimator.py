"""The DepthCrafter estimator: windows over a stream of frames, in bounded memory, as the release over a clip.

The noise of a window's first frames is that which they had in the window before, in the release by rotating
one array of noise. Frame t of a shot thus has noise t modulo the window's length, and nothing is carried from
window to window but the overlapped latents.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from secondeye.depth.depthcrafter.pipeline import GROUP_FRAMES, DepthCrafterPipeline, EncodedFrames
from secondeye.depth.depthcrafter.weights import load_pipeline
from secondeye.depth.interface import DepthEstimate, DepthState
from secondeye.depth.options import DepthOptions
from secondeye.depth.progress import FrameCounter, OnFrames, report_nothing
from secondeye.imaging.arrays import frame_size, resize, to_float_frames
from secondeye.inpaint.interface import require_finite_pixels
from secondeye.inpaint.memory import measure_modules, room_bytes
from secondeye.system.errors import UserError

SIDE_MULTIPLE_PX = 64
SEED = 42  # of the noise, the same for every shot, so that results are reproducible
_GIB = 2**30

NoiseOfFrame = Callable[[int, tuple[int, ...]], Tensor]
"""Noise of standard deviation 1 for a frame, by its number, in this shape."""


@dataclass(frozen=True)
class DepthCrafterSettings:
    """How depth is sampled; the values are the release's. Raises ValueError for values out of range."""

    steps: int = 5  # of denoising
    guidance: float = 1.0  # above 1 it costs a second pass
    window_frames: int = 110
    overlap_frames: int = 25
    resolution_px: int = 1024  # longest side, a multiple of SIDE_MULTIPLE_PX

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.overlap_frames < self.window_frames:
            raise ValueError(
                f"steps must be 1 or more and the overlap shorter than the window, got {self.steps} steps, "
                f"{self.overlap_frames} of {self.window_frames} frames"
            )
        if self.resolution_px < SIDE_MULTIPLE_PX or self.resolution_px % SIDE_MULTIPLE_PX:
            raise ValueError(f"resolution must be a multiple of {SIDE_MULTIPLE_PX}, got {self.resolution_px}")

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the network's frames: sides rounded as in the release, at least one multiple."""
        sides = [SIDE_MULTIPLE_PX * round(side / SIDE_MULTIPLE_PX) for side in (height, width)]
        if max(sides) > self.resolution_px:
            scale = self.resolution_px / max(height, width)
            sides = [SIDE_MULTIPLE_PX * round(side * scale / SIDE_MULTIPLE_PX) for side in (height, width)]
        high, wide = (max(SIDE_MULTIPLE_PX, side) for side in sides)
        return high, wide

    def depth_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the depth: the frame's aspect, which rounding changes, and no larger than it."""
        scale = min(1, max(self.working_size(height, width)) / max(height, width))
        return max(1, round(scale * height)), max(1, round(scale * width))


class LatentGroup(NamedTuple):
    """Up to GROUP_FRAMES frames whose latents no later window changes; they are decoded together."""

    first: int  # number of the first frame in the shot, a multiple of GROUP_FRAMES
    latents: Tensor  # [t, 4, h, w] float32, scaled
    sampled: Tensor  # [n, 4, h, w]: these and what is sampled after them
    size: tuple[int, int]  # height, width of the depth


class DepthCrafter:
    """A MemoryCheckedEstimator and SteppedEstimator; depth is in [0, 1] before the shot is normalised.

    Unlike the release it streams: pixel noise is drawn by the frame's number instead of for the clip at
    once, latents stay in float32, and the range of the shot's depth is taken later, as for all estimators.
    """

    def __init__(
        self,
        pipeline: DepthCrafterPipeline,
        settings: DepthCrafterSettings,
        options: DepthOptions | None = None,
        pixel_noise: NoiseOfFrame | None = None,  # [3, H, W], added to the frame; None: from SEED
        window_noise: NoiseOfFrame | None = None,  # [4, h, w], of a frame of a window; None: from SEED
        on_frames: OnFrames = report_nothing,  # called as `reporting` says
    ) -> None:
        self.pipeline, self.settings, self.options = pipeline, settings, options or DepthOptions()
        self._pixel_noise = pixel_noise or _noise_from(SEED)
        self._window_noise = window_noise or _noise_from(SEED + 2**31)
        self._on_frames = on_frames

    def reporting(self, on_frames: OnFrames) -> "DepthCrafter":
        """Return an equal estimator that calls `on_frames` after each step of denoising and each decoding."""
        noises = self._pixel_noise, self._window_noise
        return DepthCrafter(self.pipeline, self.settings, self.options, *noises, on_frames)

    def require_memory(self, height: int, width: int) -> None:
        """Raise UserError unless a window of frames of this size fits into the memory."""
        high, wide = self.settings.working_size(height, width)
        offload = self.options.offload
        model = measure_modules(self.pipeline, offload)  # which has the same modules
        need = max(
            model.pass_bytes(self.settings.window_frames, high * wide),
            GROUP_FRAMES * model.decode_bytes(high * wide, 0),
        )
        room = room_bytes(self.pipeline.execution_device, model, self.options.memory_bytes, offload)
        if need > room:
            raise UserError(
                f"DepthCrafter at {wide}x{high} needs {need / _GIB:.1f} GiB of memory besides its weights, "
                f"but {max(0, room) / _GIB:.1f} GiB are free; choose a smaller --depth-resolution"
            )

    def __call__(self, windows: Iterable[Tensor], state: DepthState | None = None) -> Iterator[DepthEstimate]:
        """Estimate frame by frame. Raises UserError if the network returns NaN."""
        done = 0 if state is None else state.next_frame
        steps, ahead = self.settings.steps, 0
        if state is not None:
            ahead = _group_start(done) + len(state.tensors["latents"]) - done  # sampled, not decoded
        counter = FrameCounter(self._on_frames, steps + 1, ahead * steps)
        for group in self.latent_groups(windows, state, counter.add_steps):
            depth = resize(self.pipeline.decode(group.latents), *group.size)
            for number in range(max(done, group.first), group.first + len(depth)):
                counter.add_steps(1)
                estimate = depth[number - group.first][None]
                yield DepthEstimate(estimate, 1.0, self._state_after(group, number + 1))
        self.pipeline.maybe_free_model_hooks()

    def latent_groups(
        self,
        windows: Iterable[Tensor],
        state: DepthState | None = None,
        on_step: OnFrames = report_nothing,  # called after each step with the new frames of its window
    ) -> Iterator[LatentGroup]:
        """Sample window by window and yield what is final, from the group of `state.next_frame` on.

        A window and a group of encoded frames are held at a time, and a group of frames.
        """
        stream = _EncodedFrames(self._encode(windows, 0 if state is None else state.first_frame))
        first, sampled = 0, torch.empty(0)
        if state is not None:
            first, sampled = _group_start(state.next_frame), state.tensors["latents"]
            stream.resume(state.first_frame, tuple(state.tensors["size"].tolist()))
        while True:
            stop = first + len(sampled)
            ended = not stream.reaches(stop)
            final = stop if ended else max(0, stop - self.settings.overlap_frames)
            while first < final and (ended or first + GROUP_FRAMES <= final):
                group = sampled[: min(GROUP_FRAMES, final - first)]
                yield LatentGroup(first, group, sampled, stream.size)
                first, sampled = first + len(group), sampled[len(group) :]
            if ended:
                return
            sampled = self._sample_window(stream, sampled, stop, on_step)

    def _sample_window(
        self, stream: "_EncodedFrames", sampled: Tensor, stop: int, on_step: OnFrames
    ) -> Tensor:
        """Return the latents with those of the window that begins `overlap_frames` before `stop`."""
        settings = self.settings
        overlap = min(settings.overlap_frames, stop)
        start = stop - overlap
        encoded = stream.take(start, start + settings.window_frames)
        shape = encoded.latents.shape[1:]
        numbers = (number % settings.window_frames for number in range(start, start + len(encoded.latents)))
        noise = torch.stack([self._window_noise(number, tuple(shape)) for number in numbers])
        previous = sampled[len(sampled) - overlap :]
        new = self.pipeline.sample(
            encoded,
            noise,
            previous if overlap else None,
            steps=settings.steps,
            guidance=settings.guidance,
            on_step=partial(on_step, len(noise) - overlap),
        )
        require_finite_pixels(new)
        if not overlap:
            return torch.cat([sampled, new]) if len(sampled) else new
        weight = torch.linspace(0, 1, overlap).view(-1, 1, 1, 1)
        blended = weight * new[:overlap] + (1 - weight) * previous
        return torch.cat([sampled[: len(sampled) - overlap], blended, new[overlap:]])

    def _encode(
        self, windows: Iterable[Tensor], number: int
    ) -> Iterator[tuple[EncodedFrames, tuple[int, int]]]:
        """Yield encoded frames group by group, and the size of their depth; `number` is the first frame's."""
        single = (window[k : k + 1] for window in windows for k in range(len(window)))
        while group := list(islice(single, GROUP_FRAMES)):
            size = frame_size(group[0])
            working = self.settings.working_size(*size)
            frames = torch.cat([resize(to_float_frames(frame), *working) for frame in group])
            noise = torch.stack([self._pixel_noise(number + k, (3, *working)) for k in range(len(group))])
            yield self.pipeline.encode(frames, noise), self.settings.depth_size(*size)
            number += len(group)

    def _state_after(self, group: LatentGroup, following: int) -> DepthState:
        """Return the state in which `following` is the next frame; it is of the group or just after it."""
        stop = group.first + len(group.sampled)
        latents = group.sampled[_group_start(following) - group.first :]
        first_encoded = _group_start(max(0, stop - self.settings.overlap_frames))
        return DepthState(following, first_encoded, {"latents": latents, "size": torch.tensor(group.size)})


class _EncodedFrames:
    """A buffer of consecutive encoded frames of a shot, filled from a stream of groups as far as needed."""

    def __init__(self, groups: Iterator[tuple[EncodedFrames, tuple[int, int]]]) -> None:
        self._groups = groups
        self._start, self._latents, self._embeddings = 0, list[Tensor](), list[Tensor]()
        self.size = (0, 0)  # of the depth; known from the first group on

    def resume(self, start: int, size: tuple[int, int]) -> None:
        """Say which frame the stream begins with, and the depth's size."""
        self._start, self.size = start, size

    def reaches(self, number: int) -> bool:
        """Return whether the shot has this frame."""
        while self._start + len(self._latents) <= number:
            found = next(self._groups, None)
            if found is None:
                return False
            encoded, self.size = found
            self._latents += encoded.latents
            self._embeddings += encoded.embeddings
        return True

    def take(self, start: int, stop: int) -> EncodedFrames:
        """Return frames `start` to `stop - 1`, fewer at the shot's end, and forget those before `start`."""
        self.reaches(stop - 1)
        del self._latents[: start - self._start], self._embeddings[: start - self._start]
        self._start = start
        count = stop - start
        return EncodedFrames(torch.stack(self._latents[:count]), torch.stack(self._embeddings[:count]))


def load_depthcrafter(
    folder: Path | None,  # of weights, see `load_pipeline`; None: from Hugging Face
    device: str,
    options: DepthOptions,
) -> DepthCrafter:
    """Load the estimator with the release's settings. Raises UserError if its weights cannot be loaded."""
    settings = DepthCrafterSettings()
    if options.resolution_px is not None:
        settings = DepthCrafterSettings(resolution_px=options.resolution_px)
    return DepthCrafter(load_pipeline(folder, device, options.offload), settings, options)


def _group_start(number: int) -> int:
    """Return the first frame of the group that a frame is in."""
    return number - number % GROUP_FRAMES


def _noise_from(seed: int) -> NoiseOfFrame:
    """Return noise that depends on the frame's number only, so that a shot can be continued anywhere."""

    def draw(number: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed + number))

    return draw

"""The diffusion inpainter: runs the pipeline over shots of any frame size and length."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from secondeye.imaging.arrays import (
    frame_size,
    require_images,
    require_plane,
    require_same_size,
    resize,
)
from secondeye.inpaint.autoencoder import ENCODE_FRAMES, LATENT_PX, encode_tiles
from secondeye.inpaint.choose_plan import Network, choose_plan
from secondeye.inpaint.conditions import clear_holes
from secondeye.inpaint.frame_windows import stream_windows
from secondeye.inpaint.interface import Conditioning, Inpainted, InpainterState, Warped
from secondeye.inpaint.memory import measure_modules, reserve_nothing, room_bytes
from secondeye.inpaint.open_frame import OpenFrame
from secondeye.inpaint.options import InpaintOptions
from secondeye.inpaint.pipeline import StereoInpaintPipeline, latent_shape
from secondeye.inpaint.plan import InpaintPlan
from secondeye.inpaint.sampling_config import SamplingConfig
from secondeye.inpaint.shot_frames import ShotFrames, join, join_padded, reduce_frames, repeat_borders
from secondeye.inpaint.weights import load_pipeline
from secondeye.inpaint.working_size import cut_tiles, image_area_px
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize

STEPS = 8  # as the release
SEED = 20240911  # of the noise, the same for every window, so that results are reproducible


_Buffered = tuple[OpenFrame, ShotFrames]


@dataclass
class InpaintStats:
    """How many windows and tiles there were, and how many had no hole and were skipped."""

    windows: int = 0
    windows_skipped: int = 0
    tiles: int = 0
    tiles_skipped: int = 0

    def __bool__(self) -> bool:
        return self.windows > 0

    def __str__(self) -> str:
        shares = [
            f"{skipped} of {pluralize(count, name)} ({100 * skipped / max(count, 1):.0f} %)"
            for name, skipped, count in (
                ("window", self.windows_skipped, self.windows),
                ("tile", self.tiles_skipped, self.tiles),
            )
        ]
        return f"diffusion: {' and '.join(shares)} had no hole and were skipped"


class Diffusion:
    """A PlannedInpainter that runs a pipeline and counts what it skips.

    Unlike the release it samples without guidance and keeps thin holes. Results are reproducible on one
    device and differ slightly between devices. They do not depend on how many frames are passed at a time.
    """

    def __init__(
        self, pipeline: StereoInpaintPipeline, options: InpaintOptions | None = None, seed: int = SEED
    ) -> None:
        self.pipeline, self.options, self.seed = pipeline, options or InpaintOptions(), seed
        self.stats = InpaintStats()
        self._plans: dict[tuple[int, int], InpaintPlan] = {}

    @property
    def conditioning(self) -> Conditioning:
        """The view that the network is conditioned on."""
        conditioning: Conditioning = self.pipeline.config.conditioning
        return conditioning

    def plan(self, height: int, width: int) -> InpaintPlan:
        """Return the plan for frames of this size, px: the one in use, or a new one.

        Raises UserError if the memory does not suffice for any plan.
        """
        if (height, width) not in self._plans:
            self._plans[height, width] = self._choose_plan(height, width)
        return self._plans[height, width]

    def reuse(self, plan: InpaintPlan) -> None:
        """Use this plan for frames of its size; UserError if the network works in another precision."""
        dtype = self._network().dtype
        if plan.dtype != dtype:
            raise UserError(
                f"the recorded plan is for a network in {plan.dtype}, this one is in {dtype}: continue on "
                "the same kind of device, or start again"
            )
        self._plans[plan.frame_size] = plan

    def __call__(self, windows: Iterable[Warped], state: InpainterState | None = None) -> Iterator[Inpainted]:
        """Inpaint window by window, each overlapping the last frames of the one before (paper, section 3.4).

        The network's result is used only where coverage is below 1, since the network blurs and shifts
        colours; the frames that the next window overlaps are composed in the same way. Raises ValueError
        unless frames and coverage are finite and of the same size, and UserError for a state of another
        plan and, where frames are 8-bit, for a network that returns NaN.
        """
        frames = _single_frames(windows)
        first = next(frames, None)
        if first is None:
            return
        plan = self.plan(*frame_size(first.frames))
        finished = None if state is None else ShotFrames.of_state(state, plan, first.frames.device)
        before = 0 if finished is None else len(finished.frames)
        given = map(partial(_buffer, plan, self.pipeline.one_step), chain([first], frames))
        del first
        for overlap, new in stream_windows(given, plan.window_frames, plan.overlap_frames, before):
            composed, finished = self._inpaint(plan, finished, overlap, new)
            yield Inpainted(composed, finished.tensors())
            del composed

    def _inpaint(
        self,
        plan: InpaintPlan,
        finished: ShotFrames | None,  # inpainted before
        overlap: int,  # how many of the last of these the window begins with
        new: list[_Buffered],  # emptied, so that what is used up does not stay in memory
    ) -> tuple[Tensor, ShotFrames]:  # in the form of the frames; the last of all frames
        """Inpaint one window; also return the frames that the next one may overlap."""
        opened, given = [frame for frame, _ in new], [small for _, small in new]
        new.clear()
        # A shot's last window reaches back over as many frames as it lacks.
        carried = plan.window_frames - 1
        fresh = min(carried, len(given))
        kept = [] if finished is None else [finished.last(carried - fresh)]
        if finished is not None:
            given.insert(0, finished.last(overlap))
        window = join_padded(given)
        composed = self._compose_window(plan, window, overlap, opened)
        window = window.take(slice(len(window.frames) - fresh, None)).cropped(plan.height, plan.width)
        small = [reduce_frames(frame, plan) for frame in composed[len(composed) - fresh :]]
        if small:
            window = window._replace(frames=torch.cat(small))
        return torch.cat(composed), join([*kept, window])

    def _compose_window(
        self, plan: InpaintPlan, window: ShotFrames, overlap: int, opened: list[OpenFrame]
    ) -> list[Tensor]:  # single frames, in their form
        """Sample the new frames of a window and compose them; `opened` is emptied."""
        composed: list[Tensor] = []
        for group in self._sample(plan, window, overlap):
            for inpainted in group[..., : plan.height, : plan.width].split(1):
                composed.append(opened.pop(0).compose(inpainted))
            del group, inpainted  # or they would be kept while the next ones are decoded
        composed += [frame.frames for frame in opened]  # of a window without holes
        opened.clear()
        return composed

    def _sample(self, plan: InpaintPlan, window: ShotFrames, overlap: int) -> Iterator[Tensor]:
        """Return the new frames of a padded window, [t, 3, h, w] in [0, 1]; none if they have no hole."""
        holes = window.holes.permute(0, 3, 1, 2)
        tiles = cut_tiles(plan.height, plan.width, plan.tile_rows, plan.tile_columns)
        with_holes = [tile for tile in tiles if tile.scaled(LATENT_PX).crop(holes[overlap:]).any()]
        self.stats.windows += 1
        self.stats.tiles += len(tiles)
        self.stats.tiles_skipped += len(tiles) - len(with_holes)
        if not with_holes:
            self.stats.windows_skipped += 1
            return iter(())
        sampling = _sampling(plan)
        generator = torch.Generator().manual_seed(self.seed)
        shape = latent_shape(window.frames)
        used = with_holes if len(tiles) > 1 else None
        latents = self.pipeline.sample_latents(
            window.frames,
            clear_holes(holes, overlap, self.pipeline.config.overlap_mask),
            sampling=sampling,
            left=window.left,
            noise=None if self.pipeline.one_step else torch.randn(shape, generator=generator),
            tiles=used,
        )
        return self.pipeline.decode_groups(latents, window.frames, sampling, used, overlap)

    def _network(self) -> Network:
        pipeline, options = self.pipeline, self.options
        return Network(
            window_frames=pipeline.unet.config.num_frames,
            tile_area_px=image_area_px(pipeline.unet.config.sample_size),
            steps=1 if pipeline.one_step else options.steps or STEPS,
            dtype=str(pipeline.unet.dtype).removeprefix("torch."),
            memory=measure_modules(
                pipeline, options.offload, options.reserved_bytes or reserve_nothing, options.shots
            ),
        )

    def _choose_plan(self, height: int, width: int) -> InpaintPlan:
        network, options = self._network(), self.options
        device = self.pipeline.execution_device
        room = room_bytes(device, network.memory, options.memory_bytes, options.offload)
        return choose_plan(height, width, network, options.tiles, room)


def load_diffusion(weights: Path | None, device: str, options: InpaintOptions, seed: int = SEED) -> Diffusion:
    """Load the pipeline as an Inpainter. Raises UserError if it cannot be loaded, or run as asked."""
    if weights is None:
        raise UserError(
            "the diffusion inpainter needs weights: train it (`dvc repro train_diffusion`) or name a folder"
        )
    if options.offload and device == "cpu":
        raise UserError("offloading keeps parts of the network off a GPU, and there is none: leave it out")
    pipeline = load_pipeline(weights, device, options.offload)
    if options.compile:
        pipeline.compile_networks()
    return Diffusion(pipeline, options, seed)


def load_vae_round_trip(weights: Path, device: str) -> Callable[[Tensor], Tensor]:
    """Load a function that encodes and decodes frames [T, 3, H, W] in [0, 1], sized as for inpainting.

    Applied to the ground truth it gives the best result the network can reach. Raises UserError if the
    weights cannot be loaded.
    """
    inpainter = load_diffusion(weights, device, InpaintOptions())
    vae = inpainter.pipeline.vae

    @torch.no_grad()
    def round_trip(frames: Tensor) -> Tensor:
        plan = inpainter.plan(*frame_size(frames))
        tiles = cut_tiles(plan.height, plan.width, plan.tile_rows, plan.tile_columns)
        small = repeat_borders(reduce_frames(frames, plan))
        groups = min(ENCODE_FRAMES, plan.decode_frames)
        latents = encode_tiles(vae, small, groups, tiles, vae.device) * vae.config.scaling_factor
        decoded = inpainter.pipeline.decode_groups(latents, small, _sampling(plan), tiles)
        whole = torch.cat(list(decoded))[..., : plan.height, : plan.width]
        return resize(whole, *frame_size(frames))

    return round_trip


def _sampling(plan: InpaintPlan) -> SamplingConfig:
    return SamplingConfig(
        steps=plan.steps,
        guidance=1.0,
        noise_share=0.0,
        keep_thin_holes=True,
        decode_frames=plan.decode_frames,
    )


def _single_frames(windows: Iterable[Warped]) -> Iterator[Warped]:
    """Yield frames one by one, so that results do not depend on how many are passed at a time."""
    for warped in windows:
        require_images(warped.frames)
        require_same_size(warped.frames, warped.left, "left")
        require_images(warped.left)
        require_plane(warped.coverage, "coverage")
        require_same_size(warped.frames, warped.coverage, "coverage")
        for t in range(len(warped.frames)):
            yield warped.take(slice(t, t + 1))


def _buffer(plan: InpaintPlan, with_left: bool, warped: Warped) -> _Buffered:
    """Return what a window needs of one frame: to compose it, and for the network."""
    return OpenFrame.of_warped(warped), ShotFrames.of_warped(warped, plan, with_left)

"""Measure the cost of the diffusion inpainter and the effect of each difference from the paper's release.

    python benchmarks/inpaint.py [plans] [tiles] [lengths] [differences]

Prints the named tables, or all of them. The network is tiny with random weights: compare passes, seconds and
memory with each other; image differences show how much two variants differ, not which is better. The baseline
is the release's plan as run by released_walk.py, with the same weights and frames. `lengths` shows how memory
depends on the number of frames.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import released_walk
import torch
from command import make_parser, run
from machine import machine
from torch import Tensor

from secondeye.evaluation.cost import measure_cost
from secondeye.imaging.arrays import occlusion_mask
from secondeye.inpaint import InpaintOptions, Warped, inpaint_shot
from secondeye.inpaint.autoencoder import decode
from secondeye.inpaint.conditions import latent_mask
from secondeye.inpaint.diffusion import Diffusion
from secondeye.inpaint.frame_windows import stream_windows
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.sampling_config import RELEASE_SAMPLING, SamplingConfig
from secondeye.inpaint.tiles import plan_tiles
from secondeye.inpaint.tiny import make_scheduler
from secondeye.synthetic import render_shot
from secondeye.system.process import wait_without_spinning
from secondeye.warp import warp

Result = TypeVar("Result")

STEPS = 2  # a conversion uses 8; both plans scale alike
HEIGHT, WIDTH, FRAMES = 128, 128, 46
TILED, TILED_FRAMES = (256, 256), 12
SMALL = (64, 128)
PLANS = ("release", "ours", "ours, in one step")
LENGTHS, AT_ONCE = (24, 96, 384), 8
OURS = SamplingConfig(steps=8, guidance=1.0, noise_share=0.0, keep_thin_holes=True, decode_frames=8)


class Measured(NamedTuple):
    """What inpainting a shot took."""

    seconds: float  # per frame
    processor_seconds: float  # per frame, of all threads; other processes hardly change it
    peak_mib: float

    @staticmethod
    def columns() -> str:
        """Return the names of the columns that `str` fills."""
        return "seconds per frame | seconds of processor time per frame | peak memory, MB"

    def __str__(self) -> str:
        return f"{self.seconds:.2f} | {self.processor_seconds:.2f} | {self.peak_mib * 2**20 / 1e6:.0f}"


def measure(work: Callable[[], Result], frames: int) -> tuple[Result, Measured]:
    """Return the result of `work` and what it took."""
    start = time.process_time()
    result, cost = measure_cost(work, frames)
    return result, Measured(cost.seconds, (time.process_time() - start) / frames, cost.peak_mib)


def plans() -> str:
    """Return a Markdown table of passes, seconds and memory per frame, ours and the release's."""
    return compare(film(FRAMES, HEIGHT, WIDTH), tiles_per_side=1)


def tiles() -> str:
    """Return the same table with two tiles per side on a larger frame."""
    return compare(film(TILED_FRAMES, *TILED), tiles_per_side=2)


def compare(shot: Warped, tiles_per_side: int) -> str:
    """Return a row per plan and the difference between the results."""
    rows, made = [], {}
    for plan in PLANS:
        passes, measured, inpainted, skipped = run_in_process(run_plan, plan, shot, tiles_per_side)
        made[plan] = torch.from_numpy(inpainted)
        name = plan if tiles_per_side == 1 else f"{plan}, {tiles_per_side}x{tiles_per_side} tiles"
        rows.append(f"| {name} | {passes:.1f} | {measured} | {skipped} |")
    return "\n".join([*heading(shot), *rows, f"\n{describe_difference(made['release'], made['ours'], shot)}"])


def heading(shot: Warped) -> list[str]:
    frames, _, height, width = shot.frames.shape
    hidden = 100 * float(occlusion_mask(shot.coverage).float().mean())
    return [
        f"{width}x{height}, {frames} frames, {STEPS} steps, {torch.get_num_threads()} threads; "
        f"{hidden:.1f} % hidden. A pass is one evaluation of the network on one frame or tile.\n",
        f"| plan | passes per frame | {Measured.columns()} | skipped work |",
        "|---|---|---|---|---|---|",
    ]


def describe_difference(release: Tensor, ours: Tensor, shot: Warped) -> str:
    """Describe how far the two results differ from each other, and each from the visible pixels."""
    holes = occlusion_mask(shot.coverage).expand_as(shot.frames)
    kept = psnr_db(release[~holes], shot.frames[~holes])
    return (
        f"The PSNR between the release's results and ours is {psnr_db(release, ours):.1f} dB, "
        f"{psnr_db(release[holes], ours[holes]):.1f} dB in the holes. Ours keeps visible pixels unchanged; "
        f"in the release's results they have a PSNR of {kept:.1f} dB."
    )


def lengths() -> str:
    """Return a Markdown table of peak memory against length, with frames streamed as in a conversion."""
    lines = [f"| frames | {Measured.columns()} |", "|---|---|---|---|"]
    lines += [f"| {count} | {run_in_process(stream_film, count)} |" for count in LENGTHS]
    return "\n".join(lines)


def differences() -> str:
    """Return a Markdown table of the effect of each difference, with the same frames, weights and noise."""
    rows = [row for part in (sampling_rows, mask_rows, time_rows, tile_rows) for row in part()]
    return "\n".join(["| ours | the release | effect |", "|---|---|---|", *rows])


def sampling_rows() -> Iterator[str]:
    """Yield rows on guidance, precision and decoder chunks."""
    pipeline, shot = make_pipeline(), film(9, *SMALL)
    holes = occlusion_mask(shot.coverage).float()

    def inpaint(sampling: SamplingConfig) -> tuple[Tensor, Tensor]:
        return pipeline(shot.frames, holes, sampling=sampling, generator=make_generator(0))

    latents, frames = inpaint(OURS)
    _, other = inpaint(replace(OURS, guidance=1.01))
    yield f"| no guidance | 1.01 | half the passes; PSNR between results {psnr_db(frames, other):.1f} dB |"
    with torch.no_grad():
        together, ours, groups = (decode(pipeline.vae, latents, count) for count in (9, 5, 2))
    yield (
        f"| decoder chunks of 5 and 4 frames | of 2 frames | RMS difference from decoding all 9 together: "
        f"{rms(ours, together):.3f}, the release "
        f"{rms(groups, together):.3f} |"
    )
    pipeline.unet.to(torch.float16)
    _, half = inpaint(OURS)
    rounded = HalfPrecisionScheduler.from_config(pipeline.scheduler.config)
    pipeline.scheduler = rounded
    _, theirs = inpaint(OURS)
    yield (
        f"| latents in float32 | float16 | PSNR with a float16 network against all in float32: "
        f"{psnr_db(frames, half):.1f} dB, the release {psnr_db(frames, theirs):.1f} dB |"
    )


class HalfPrecisionScheduler(type(make_scheduler())):  # type: ignore[misc]
    """Scheduler that rounds latents to half precision after each step, like the release."""

    def step(self, *arguments: object, **options: object) -> object:
        made = super().step(*arguments, **options)
        made.prev_sample = made.prev_sample.half().float()
        return made


def mask_rows() -> Iterator[str]:
    """Yield rows on the mask of thin holes."""
    shares = []
    for keep in (True, False):
        found = total = 0.0
        for seed in range(4):
            holes = occlusion_mask(film(4, HEIGHT, WIDTH, seed).coverage).float()
            mask = latent_mask(holes, keep).repeat_interleave(8, 2).repeat_interleave(8, 3)
            found, total = found + float((mask * holes).sum()), total + float(holes.sum())
        shares.append(100 * found / total)
    yield (
        f"| a latent is a hole if any of its pixels is | if its first pixel is | the network sees "
        f"{shares[0]:.0f} % of the hole pixels; in the release {shares[1]:.0f} % |"
    )


def time_rows() -> Iterator[str]:
    """Yield rows on how windows continue from previous frames."""
    fewest = min(released_walk.plan_chunks(n)[-1].overlap for n in range(24, 130))
    shortest = min(released_walk.plan_chunks(n)[-1].length for n in range(24, 130))
    ours = [list(stream_windows(range(n), 25, 3))[-1] for n in range(26, 130)]
    yield (
        f"| the last window has {min(k + len(new) for k, new in ours)} frames, at least "
        f"{min(k for k, _ in ours)} of them finished | {shortest} frames, at least {fewest} finished | "
        "lengths up to 129 |"
    )
    pipeline, shot = make_pipeline(), film(3, *SMALL)
    holes = occlusion_mask(shot.coverage).float()
    given, losses = shot.frames, []
    seen = (shot.coverage == 1).expand_as(given)
    for _ in range(3):
        _, inpainted = pipeline(
            given, holes, sampling=replace(RELEASE_SAMPLING, steps=2), generator=make_generator(0)
        )
        given = (inpainted * 255).round() / 255
        losses.append(psnr_db(given[seen], shot.frames[seen]))
    psnrs = ", ".join(f"{loss:.1f}" for loss in losses)
    yield (
        "| composed frames are passed on, exact where visible | decoded frames | PSNR of the release's "
        f"visible pixels against the warped view: {psnrs} dB after 1, 2, 3 windows |"
    )
    kept, cleared = (
        pipeline(shot.frames, mask, sampling=replace(OURS, steps=2), generator=make_generator(0)).frames[1:]
        for mask in (holes, torch.cat([torch.zeros_like(holes[:1]), holes[1:]]))
    )
    yield (
        "| the mask of finished frames is cleared, if the weights were trained so | kept | PSNR between the "
        f"following frames: {psnr_db(kept, cleared):.1f} dB |"
    )


def tile_rows() -> Iterator[str]:
    """Yield rows on disagreement of overlapping tiles, and on padding."""
    pipeline, shot = make_pipeline(), film(2, HEIGHT, 2 * WIDTH)
    holes, generator = torch.ones_like(shot.coverage), make_generator(0)
    left, right = plan_tiles(HEIGHT, 2 * WIDTH, (1, 2), 128, 64)
    inpainted = [
        pipeline.sample_latents(tile.crop(shot.frames), tile.crop(holes), sampling=OURS, generator=generator)
        for tile in (left, right)
    ]
    shared = (left.left + left.width - right.left) // 8
    apart = rms(inpainted[0][..., -shared:], inpainted[1][..., :shared]) / float(inpainted[0].std())
    yield (
        "| tiles share noise and are averaged at every step | sampled separately, blended at the end | in "
        f"the release's overlap they are {apart:.2f} standard deviations apart |"
    )
    cut = {rows: 100 * (rows % 128) / rows for rows in (1080, 720)}
    losses = ", ".join(f"{share:.1f} % of {rows} rows" for rows, share in cut.items())
    yield f"| padded and cropped back | cropped to multiples of 128 | the release loses {losses} |"


def make_pipeline(in_channels: int = 9) -> StereoInpaintPipeline:
    """Build the tests' miniature of the release; with 13 channels, its one-step variant."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from conformance.tiny_release import SEEDS, make_autoencoder, make_image_encoder, make_network

    network = make_network(in_channels, SEEDS["inpainting"])
    network.register_to_config(sample_size=96)  # as the release's: no picture here is reduced
    return StereoInpaintPipeline(make_autoencoder(), make_image_encoder(), network, make_scheduler())


def film(frames: int, height: int, width: int, seed: int = 90_001) -> Warped:
    """Render a synthetic shot and warp it to the second view."""
    shot = render_shot(seed, frames, height, width)
    return Warped(shot.left, *warp(shot.left, shot.disparity))


def run_plan(connection: Connection, plan: str, shot: Warped, tiles_per_side: int) -> None:
    """Send passes per frame, what was measured, the frames, and the skipped work."""
    pipeline, frames = make_pipeline(13 if plan == "ours, in one step" else 9), len(shot.frames)
    shot = Warped(*(plane.clone() for plane in shot[:4]))  # copy out of shared memory
    passes = [0]
    count = lambda _, given: passes.__setitem__(0, passes[0] + given[0].shape[0] * given[0].shape[1])  # noqa: E731
    pipeline.unet.register_forward_pre_hook(count)
    inpainter = Diffusion(pipeline, InpaintOptions(STEPS, tiles_per_side))
    holes = occlusion_mask(shot.coverage).float()
    sampling = replace(RELEASE_SAMPLING, steps=STEPS)

    def walk() -> Tensor:
        if plan != "release":
            return inpaint_shot(inpainter, [shot])
        return released_walk.inpaint_film(
            pipeline,
            shot.frames,
            holes,
            generator=make_generator(0),
            sampling=sampling,
            tiles_per_side=tiles_per_side,
        )

    made, measured = measure(walk, frames)
    skipped = "nothing" if plan == "release" else str(inpainter.stats).partition(": ")[2]
    # Not a tensor: its shared memory would end with this process.
    connection.send((passes[0] / frames, measured, made.numpy(), skipped))


def stream_film(connection: Connection, frames: int) -> None:
    """Send what was measured on a film that arrives in parts."""
    inpainter, shot = Diffusion(make_pipeline(), InpaintOptions(1, 1)), film(AT_ONCE, *SMALL)

    def stream() -> None:
        for _ in inpainter(shot for _ in range(frames // AT_ONCE)):
            pass

    connection.send(measure(stream, frames)[1])


def run_in_process(work: Callable[..., None], *arguments: object) -> Any:
    """Run in a separate process, so that the peak memory is its own."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(theirs, *arguments))
    process.start()
    theirs.close()
    made = ours.recv()
    process.join()
    return made


def make_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rms(one: Tensor, other: Tensor) -> float:
    return float(((one - other) ** 2).mean().sqrt())


def psnr_db(one: Tensor, other: Tensor) -> float:
    """Return the PSNR of images in [0, 1]."""
    return -20 * float(torch.log10(torch.tensor(rms(one, other)).clamp_min(1e-5)))


TABLES = {"plans": plans, "tiles": tiles, "lengths": lengths, "differences": differences}


def main() -> None:
    """Print the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"{', '.join(TABLES)}; default: all")
    chosen = parser.parse_args().tables
    if unknown := [name for name in chosen if name not in TABLES]:
        parser.error(f"no table is named {unknown[0]}: choose from {', '.join(TABLES)}")
    wait_without_spinning()  # in the processes that measure, as in a conversion
    print(machine())
    for name in chosen or TABLES:
        print(f"\n{TABLES[name]()}", flush=True)


if __name__ == "__main__":
    run(main)

"""The paper's ablations of the diffusion inpainter, as pages with images and numbers.

    python benchmarks/ablations.py overlap --model FOLDER [--film FILM | --data ROOT] [--out FOLDER]
    python benchmarks/ablations.py tiles --model FOLDER [--film FILM | --data ROOT] [--out FOLDER]

`overlap` (the paper's figure 9): windows that overlap inpainted frames against windows that do not.
`tiles` (figure 10): frames at full size in tiles against frames reduced to one tile, which takes about the
same memory. Clips are synthetic shots with exact disparity, by default; or parts of FILM, a monocular film,
whose frames are the true right view: the left view and its disparity are made from them as in training, so
that the holes are where a left view would not have seen the scene; or the test clips of a dataset with
matched disparity. Sizes are those of synthetic shots and of FILM's frames, which are cropped to this shape.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from command import existing, make_parser, run
from machine import machine
from torch import Tensor

from secondeye.conversion.warped_window import warped_window
from secondeye.dataset.reader import Dataset
from secondeye.evaluation.eval_clips import EvalFrames, load_clip
from secondeye.evaluation.regions import DISOCCLUDED, regions_from_truth
from secondeye.evaluation.score import compute, prepare, update
from secondeye.imaging.arrays import frames_to_uint8, occlusion_mask
from secondeye.inpaint import InpaintOptions, InpaintPlan, inpaint_shot
from secondeye.inpaint.diffusion import Diffusion, load_diffusion
from secondeye.inpaint.frame_windows import stream_windows
from secondeye.inpaint.plan import GIB
from secondeye.metrics.holes import temporal_error
from secondeye.report.contact_sheet import HOLE_COLOUR, Tile, write_contact_sheet
from secondeye.report.document import Image, Section, Table, to_markdown
from secondeye.report.html import write_page
from secondeye.synthetic import render_shot
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic
from secondeye.system.process import best_device
from secondeye.system.text import pluralize
from secondeye.training.film_runs import read_runs
from secondeye.training.monocular import left_view, plausible_disparity
from secondeye.warp import warp

SEED = 90_101  # of the first synthetic shot; no preset uses it
WINDOWS = 3  # length of a clip, in windows: whole ones, so that without overlap none reaches back
FILM_STRENGTH_PERCENT = 5.0  # of the width: the strongest disparity of training, for enough holes
CROP = 3  # images show this part of a frame's sides, around most of its holes
TITLES = {"overlap": "Windows with and without overlap", "tiles": "Tiles against reduction"}
COLUMNS = {
    "haarpsi": "HaarPSI",
    "psnr_disoccluded_db": "PSNR in holes, dB",
    "gradient_ratio": "gradient energy in holes, relative to the true view",
    "border_jump": "jump at window borders, levels",
    "inner_jump": "jump inside windows, levels",
    "memory_gib": "estimated memory, GiB",
    "passes_per_frame": "passes per frame",
}
MEANING = (
    "HaarPSI is the similarity to the true right view around holes, 1 for identical images. Gradient energy "
    "is 1 if holes are as sharp as the true view, and lower if they are blurred. Jumps are changes of the "
    "error in holes from one frame to the next, in levels of 255: `at window borders` from a window's last "
    "frame to the first new frame of the next window, `inside windows` everywhere else. Where windows fit "
    "together, both are equal. A pass is one evaluation of the network on one frame or tile."
)


class Variant(NamedTuple):
    """One side of an ablation."""

    name: str
    plan: InpaintPlan


class Result(NamedTuple):
    """What a variant made of a clip."""

    right: Tensor  # [T, 3, H, W] in [0, 1]
    numbers: dict[str, float]  # by COLUMNS


def main() -> None:
    """Write the page of one ablation."""
    parser = make_parser(__doc__)
    parser.add_argument("ablation", choices=tuple(TITLES))
    parser.add_argument("--model", type=existing, required=True, help="weights of the network")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--film", type=existing, help="monocular film")
    source.add_argument("--data", type=existing, help="root of a dataset")
    parser.add_argument("--clips", type=int, default=4, help="at most (default: 4)")
    parser.add_argument("--height", type=int, default=1080, help="px (default: 1080)")
    parser.add_argument("--width", type=int, default=1920, help="px (default: 1920)")
    parser.add_argument("--steps", type=int, help="default: as a conversion takes")
    parser.add_argument("--out", type=Path, help="folder (default: reports/ablation_NAME)")
    chosen = parser.parse_args()
    inpainter = load_diffusion(chosen.model, best_device(), InpaintOptions(chosen.steps))
    window_frames = inpainter.pipeline.unet.config.num_frames
    frames = WINDOWS * window_frames
    if chosen.film is not None:
        clips = film_clips(chosen.film, chosen.clips, frames, chosen.height, chosen.width)
        source_name = f"parts of {chosen.film.name}, {chosen.width}x{chosen.height}"
    elif chosen.data is not None:
        clips = dataset_clips(chosen.data, chosen.clips, frames, window_frames)
        source_name = "test clips of a dataset"
    else:
        clips = synthetic_clips(chosen.clips, frames, chosen.height, chosen.width)
        source_name = f"synthetic shots, {chosen.width}x{chosen.height}"
    out = chosen.out or Path("reports") / f"ablation_{chosen.ablation}"
    print(f"{write_ablation(chosen.ablation, inpainter, clips, source_name, out)}: open it in a browser")


def synthetic_clips(count: int, frames: int, height: int, width: int) -> Iterator[EvalFrames]:
    """Render shots with exact disparity."""
    for seed in range(SEED, SEED + count):
        shot = render_shot(seed, frames, height, width)
        regions = regions_from_truth(shot.right_disparity, shot.right_occlusion)
        yield EvalFrames(shot.left, shot.right, shot.disparity, regions)


def film_clips(film: Path, count: int, frames: int, height: int, width: int) -> Iterator[EvalFrames]:
    """Read parts of a monocular film as right views, and make their left views as in training.

    Raises UserError if no shot of the film has that many frames.
    """
    runs = list(read_runs(film, frames, height, width))
    if not runs:
        raise UserError(f"{film}: no shot has {frames} frames, as the windows of this network need")
    rng = np.random.default_rng(SEED)
    for right in runs[:count]:
        right_disparity = stretch(plausible_disparity(right, rng, sharp=True))
        left, disparity = left_view(right, right_disparity)
        holes = occlusion_mask(warp(left, disparity).coverage)
        yield EvalFrames(left, right, disparity, regions_from_truth(right_disparity, holes))


def stretch(disparity: Tensor) -> Tensor:
    """Scale a disparity so that its nearest and farthest points are FILM_STRENGTH_PERCENT apart."""
    far, near = np.quantile(disparity.numpy(), [0.01, 0.99])
    return disparity * (FILM_STRENGTH_PERCENT / 100 * disparity.shape[-1] / max(float(near - far), 1e-6))


def dataset_clips(root: Path, count: int, frames: int, window_frames: int) -> Iterator[EvalFrames]:
    """Load the first test clips of at least two windows, cut to whole windows. UserError if there is none."""
    dataset = Dataset(root)
    test = dataset.clips("test")
    long = (clip for clip in test if clip.clip.stop - clip.clip.start >= 2 * window_frames)
    loaded = [load_clip(dataset, clip, frames) for clip in islice(long, count)]
    if not loaded:
        raise UserError(f"{root}: no test clip has {2 * window_frames} frames, two windows of this network")
    for clip in loaded:
        whole = len(clip.left) // window_frames * window_frames
        yield EvalFrames(*(array[:whole] for array in clip))


def write_ablation(
    ablation: str, inpainter: Diffusion, clips: Iterator[EvalFrames], source: str, out: Path
) -> Path:
    """Inpaint clips in both variants; write index.html, README.md, numbers.json and images."""
    out.mkdir(parents=True, exist_ok=True)
    images, plans, numbers = [], dict[str, None](), dict[str, list[dict[str, float]]]()
    for index, clip in enumerate(clips):
        height, width = clip.left.shape[2:]
        results = {}
        for variant in make_variants(ablation, inpainter, height, width):
            results[variant.name] = inpaint_clip(inpainter, variant, clip)
            numbers.setdefault(variant.name, []).append(results[variant.name].numbers)
            plans[f"{variant.name}: {variant.plan}."] = None
        border = next(iter(window_borders(len(clip.left), inpainter.plan(height, width))), 0)
        path = out / f"clip_{index}.png"
        write_contact_sheet(path, sheet(clip, results, border))
        caption = f"clip {index}: a part of the frame; a window ends before frame {border}; holes are magenta"
        images.append(Image(caption, path))
    title = f"{TITLES[ablation]}: {source}"
    sections = [Section("Numbers", [table(numbers), MEANING, *plans]), Section("Images", images)]
    write_atomic(out / "numbers.json", json.dumps(numbers, indent=1) + "\n")
    write_atomic(out / "README.md", to_markdown(title, sections[:1]))
    write_page(out / "index.html", title, sections, {})
    return out / "index.html"


def make_variants(ablation: str, inpainter: Diffusion, height: int, width: int) -> list[Variant]:
    """Return what is compared, for frames of this size."""
    plan = inpainter.plan(height, width)
    if ablation == "overlap":
        return [
            Variant("with overlap", plan),
            Variant("without overlap", replace(plan, overlap_frames=0)),
        ]
    one_tile = Diffusion(inpainter.pipeline, replace(inpainter.options, tiles=1), inpainter.seed)
    reduced = replace(one_tile.plan(height, width), decode_frames=plan.decode_frames)
    return [
        Variant(f"{plan.tile_rows}x{plan.tile_columns} tiles", plan),
        Variant(f"reduced to {reduced.width}x{reduced.height}", reduced),
    ]


def inpaint_clip(given: Diffusion, variant: Variant, clip: EvalFrames) -> Result:
    """Warp and inpaint a clip by the variant's plan, and score it as the evaluation does."""
    inpainter = Diffusion(given.pipeline, given.options, given.seed)  # `given` keeps its own plan
    inpainter.reuse(variant.plan)
    warped = warped_window(clip.left, clip.disparity, inpainter.conditioning)
    passes = [0]
    hook = inpainter.pipeline.unet.register_forward_pre_hook(
        lambda _, arguments: passes.__setitem__(0, passes[0] + arguments[0].shape[1])
    )
    right = inpaint_shot(inpainter, [warped])
    hook.remove()
    found = compute(update(prepare(clip.left, clip.right, clip.regions), right, overlap=0, learned=None))
    return Result(
        right,
        {
            **{name: found[name] for name in ("haarpsi", "psnr_disoccluded_db", "gradient_ratio")},
            **measure_jumps(right, clip, window_borders(len(right), variant.plan)),
            "memory_gib": variant.plan.memory_bytes / GIB,
            "passes_per_frame": passes[0] / len(right),
        },
    )


def window_borders(frames: int, plan: InpaintPlan) -> list[int]:
    """Return the first new frame of each window but the first."""
    windows = stream_windows(range(frames), plan.window_frames, plan.overlap_frames)
    return [new[0] for _, new in windows][1:]


def measure_jumps(right: Tensor, clip: EvalFrames, borders: list[int]) -> dict[str, float]:
    """Return the error's change from frame to frame in holes, levels of 255: at borders and elsewhere."""
    holes = clip.regions == DISOCCLUDED
    sums = {"border_jump": np.zeros(2), "inner_jump": np.zeros(2)}
    for t in range(1, len(right)):
        pair = slice(t - 1, t + 1)
        name = "border_jump" if t in borders else "inner_jump"
        sums[name] += temporal_error(right[pair], clip.right[pair], holes[pair])
    return {
        name: 255 * math.sqrt(total / count) if count else math.nan for name, (total, count) in sums.items()
    }


def table(numbers: dict[str, list[dict[str, float]]]) -> Table:
    """Return the means over clips, a row for each variant."""
    arrays = {column: [[clip[column] for clip in clips] for clips in numbers.values()] for column in COLUMNS}
    means = [comparable_means(np.array(values)) for values in arrays.values()]
    rows = [
        [name, *(f"{mean[k]:.4g}" if math.isfinite(mean[k]) else "-" for mean in means)]
        for k, name in enumerate(numbers)
    ]
    note = f"Means over {pluralize(len(next(iter(numbers.values()))), 'clip')}. {machine()}."
    return Table("", ["", *COLUMNS.values()], rows, note)


def comparable_means(
    values: np.ndarray,  # [variants, clips]
) -> np.ndarray:  # [variants]
    """Return means over the clips for which every variant has a value; NaN if there is none."""
    both = values[:, np.isfinite(values).all(0)]
    return both.mean(1) if both.size else np.full(len(values), math.nan)


def sheet(clip: EvalFrames, results: dict[str, Result], border: int) -> list[list[Tile]]:
    """Return rows of the frames around a border, cropped to many holes: holes, each variant, the truth."""
    part = crop_with_holes(clip.regions[max(0, border - 1)] == DISOCCLUDED)
    shown = [t for t in range(border - 2, border + 2) if 0 <= t < len(clip.left)]
    warped, coverage = warp(clip.left, clip.disparity)[:2]
    holes = torch.tensor(HOLE_COLOUR).view(3, 1, 1) / 255
    views = {
        "warped view": torch.where(occlusion_mask(coverage), holes, warped),
        **{name: result.right for name, result in results.items()},
        "true right view": clip.right,
    }
    return [
        [(f"{name}, frame {t}", frames_to_uint8(view[t : t + 1])[0].numpy()[part]) for t in shown]
        for name, view in views.items()
    ]


def crop_with_holes(holes: Tensor) -> tuple[slice, slice]:  # bool [1, H, W]
    """Return the part of a frame, a CROPth of its sides, that has the most holes."""
    height, width = (side // CROP for side in holes.shape[1:])
    density = cv2.blur(holes[0].numpy().astype(np.float32), (width, height))
    inside = density[height // 2 : height // 2 + 2 * height, width // 2 : width // 2 + 2 * width]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


if __name__ == "__main__":
    run(main)

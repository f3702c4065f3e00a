"""The whole way from a film to its stereoscopic version, shot by shot, continued where it was left."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from secondeye.conversion.bundle import SHIPPED, weights_folder
from secondeye.conversion.checkpoint import Checkpoint, open_checkpoint
from secondeye.conversion.preview import write_preview
from secondeye.conversion.render import render
from secondeye.conversion.settings import ConversionSettings
from secondeye.conversion.shot_depth import ShotDepth, estimate_shot
from secondeye.depth import DepthEstimator, best_available, make_depth_estimator
from secondeye.film.cuts import CUT_THRESHOLD, shortest_shot_frames
from secondeye.film.packing import side_by_side
from secondeye.film.shots import ShotPlan, plan_shots
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.inpaint import Inpainter, make_inpainter
from secondeye.system.disk import require_free_space
from secondeye.system.errors import UserError
from secondeye.system.process import best_device
from secondeye.video.mux import can_hold_audio, mux_film
from secondeye.video.probe import FilmInfo, probe
from secondeye.video.read import Picture, ShotReader
from secondeye.video.write import FilmWriter

CONTAINERS = (".mp4", ".mov", ".mkv")
_WINDOW = 8  # frames in memory at a time; the estimators hold a few more
_LEAST_TRUST = 0.35  # strength left to a shot whose depth is a guess (ours)
_BYTES_PER_PIXEL = 0.06  # a bound: H.264 at crf 16 took 0.02 (real) to 0.055 (synthetic film)
_DEPTH_PIXELS = {
    "motion": 384 * 384,
    "student": 512 * 512,
    "depth-anything-v2": 518 * 924,
}  # of one map, at most


@dataclass(frozen=True)
class ConversionResult:
    """What a conversion came to."""

    output: Path
    frames: int
    error: str  # why the film ends early; "" if it does not


def convert(
    film: Path,
    output: Path | None,  # None: beside the film, as NAME_sbs.mp4, or .mkv where mp4 can not hold its sound
    settings: ConversionSettings,
    *,
    sheet: Path | None = None,  # where to put a picture of what was done (.png)
    overwrite: bool = False,  # replace an output that is there
    say: Callable[[str], None] = print,
) -> ConversionResult:
    """Convert a film to full side-by-side; the output appears under its name when it is whole.

    Frame count, time stamps, pixel shape, sound and subtitles are the source's. Interrupted, the same call
    continues after the last finished shot. Raises UserError with one line for a user's mistake.
    """
    info = probe(film)
    output = _checked_output(film, output, overwrite)
    if sheet is not None:
        _check_sheet(sheet, film, overwrite)
    if info.is_hdr:
        raise UserError(
            f"{film}: is HDR (PQ or HLG), which 8 bits would show wrong; tone-map it to SDR first"
        )
    settings = _choose(settings, say)
    device = best_device()
    estimator = make_depth_estimator(settings.depth, weights_folder(settings.model, "depth"), device)
    inpainter = make_inpainter(settings.inpainter, weights_folder(settings.model, "inpaint"), device)
    with open_checkpoint(output, info, settings) as journal:
        plan = _plan(journal, info)
        _tell(plan, say)
        _require_room(journal, plan, output, settings)
        _convert_shots(journal, plan, settings, estimator, inpainter, say)
        work = getattr(inpainter, "work", None)  # the diffusion inpainter says what it could skip
        if work and work.windows:
            say(str(work))
        _finish(journal, plan, output, say)
        if sheet:
            shutil.move(journal.sheet, sheet)
        journal.remove()
    return ConversionResult(output, len(plan.timestamps), plan.error)


def _choose(settings: ConversionSettings, say: Callable[[str], None]) -> ConversionSettings:
    """Settings with every `auto` decided, and said."""
    depth, why = settings.depth, ""
    if depth == "auto":
        depth = best_available()
        why = " (no weights of a learned model on this machine)" if depth == "motion" else ""
    inpainter = "fill" if settings.inpainter == "auto" else settings.inpainter
    source = f"; model: {settings.model}" if settings.model not in (None, SHIPPED) else ""
    say(f"depth: {depth}{why}; holes: {inpainter}{source}")
    return replace(settings, depth=depth, inpainter=inpainter)


def _tell(plan: ShotPlan, say: Callable[[str], None]) -> None:
    info = plan.info
    sound = ", ".join(info.sound) or "none"
    say(f"{info.path}: {info.width}x{info.height}, {float(info.fps):.3f} fps, sound: {sound}")
    if info.bits > 8:
        say(f"warning: {info.path} has {info.bits} bits a channel; the output has 8")
    if plan.error:
        say(f"warning: {plan.error}; the good part is converted")


def _require_room(journal: Checkpoint, plan: ShotPlan, output: Path, settings: ConversionSettings) -> None:
    """Room for the shots that are missing, the film made of all, its sound, and the depth of one shot."""
    frame = plan.info.width * plan.info.height * 2 * _BYTES_PER_PIXEL
    missing = sum(plan.shots[n][1] - plan.shots[n][0] for n in _waiting(journal, plan))
    longest = max(stop - start for start, stop in plan.shots)
    sound = plan.info.path.stat().st_size if plan.info.sound else 0  # at most
    spill = longest * _DEPTH_PIXELS[settings.depth] * 4
    need = (missing + len(plan.timestamps)) * frame + sound + spill
    require_free_space(output.parent, need, "convert")


def _waiting(journal: Checkpoint, plan: ShotPlan) -> list[int]:
    return [number for number in range(len(plan.shots)) if not journal.segment(number).exists()]


def _checked_output(film: Path, output: Path | None, overwrite: bool) -> Path:
    if output is None:
        suffix = ".mp4" if can_hold_audio(film, ".mp4") else ".mkv"
        output = film.with_name(f"{film.stem}_sbs{suffix}")
    if output.is_dir():
        raise UserError(f"{output}: is a folder; name the film to write")
    if output.suffix not in CONTAINERS:
        raise UserError(f"{output}: the name must end in {', '.join(CONTAINERS)}")
    if output.exists() and output.samefile(film):
        raise UserError(f"{output}: is the film itself; give --output another name")
    if output.exists() and not overwrite:
        raise UserError(f"{output}: is there already; give --output another name, or --overwrite")
    _check_folder(output.parent)
    if not can_hold_audio(film, output.suffix):
        raise UserError(
            f"{output}: {output.suffix} can not hold the film's sound; give --output a name in .mkv"
        )
    return output


def _check_sheet(sheet: Path, film: Path, overwrite: bool) -> None:
    if sheet.suffix != ".png" or sheet.is_dir():
        raise UserError(f"{sheet}: the sheet's name must end in .png")
    if sheet.exists() and sheet.samefile(film):
        raise UserError(f"{sheet}: is the film itself; give --sheet another name")
    if sheet.exists() and not overwrite:
        raise UserError(f"{sheet}: is there already; give --sheet another name, or --overwrite")
    _check_folder(sheet.parent)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{folder}: can not be written to ({error.strerror})") from error


def _plan(journal: Checkpoint, info: FilmInfo) -> ShotPlan:
    plan = journal.recall(info)
    if plan is None:
        with tqdm(total=info.frames or None, desc="looking for cuts", unit="frame", leave=False) as bar:
            plan = plan_shots(
                info,
                cut_threshold=CUT_THRESHOLD,
                min_shot_frames=shortest_shot_frames(info.fps),
                on_frame=bar.update,
            )
        journal.remember(plan)
    return plan


def _convert_shots(
    journal: Checkpoint,
    plan: ShotPlan,
    settings: ConversionSettings,
    estimator: DepthEstimator,
    inpainter: Inpainter,
    say: Callable[[str], None],
) -> None:
    waiting = _waiting(journal, plan)
    done = len(plan.shots) - len(waiting)
    say(
        f"{len(plan.timestamps)} frames in {len(plan.shots)} shots"
        + (f", {done} of them finished before" if done else "")
    )
    total = sum(plan.shots[n][1] - plan.shots[n][0] for n in waiting)
    for_depth, for_eyes = (ShotReader(plan.info.path, plan.timestamps) for _ in range(2))
    # A frame counts twice: once for its depth, once for its right eye.
    with tqdm(total=2 * total, desc="converting", unit="frame") as bar:
        for number in waiting:
            start, stop = plan.shots[number]
            windows = _windows(for_depth.read(start, stop), bar.update)
            frames = (frames_from_uint8(window) for _, window in windows)
            depth = estimate_shot(frames, estimator, journal.spill)
            strength = settings.strength_percent * max(_LEAST_TRUST, depth.confidence)
            bar.write(
                f"shot {number + 1}, frames {start} to {stop - 1}: depth confidence {depth.confidence:.2f}, "
                f"strength {strength:.2f} %"
            )
            windows = _windows(for_eyes.read(start, stop), bar.update)
            _render_shot(journal, plan, number, windows, depth, strength, inpainter, settings)
            journal.spill.unlink()


RenderWindow = tuple[list[Picture], Tensor]


def _windows(pictures: Iterator[Picture], advance: Callable[[int], object]) -> Iterator[RenderWindow]:
    """Pictures in groups, with what they show: uint8 [t, H, W, 3]."""
    while window := list(islice(pictures, _WINDOW)):
        yield window, torch.from_numpy(np.stack([picture.rgb for picture in window]))
        advance(len(window))


def _render_shot(
    journal: Checkpoint,
    plan: ShotPlan,
    number: int,
    windows: Iterable[RenderWindow],
    depth: ShotDepth,
    strength_percent: float,
    inpainter: Inpainter,
    settings: ConversionSettings,
) -> None:
    start = at = plan.shots[number][0]
    info, middle, state = plan.info, len(plan.timestamps) // 2, None
    part = journal.folder / "segment.part"
    with FilmWriter(
        part,
        2 * info.width,
        info.height,
        fps=info.fps,
        time_base=info.time_base,
        colour=info.colour,
        pixel_aspect=info.pixel_aspect,
        crf=settings.crf,
        preset=settings.preset,
        side_by_side=True,
    ) as writer:
        for (pictures, left), raw in zip(windows, depth.windows(_WINDOW), strict=True):
            made = render(
                left,
                raw,
                inpainter,
                strength_percent=strength_percent,
                convergence=settings.convergence,
                state=state,
            )
            state = made.state
            for picture, eye in zip(pictures, made.right.numpy(), strict=True):
                writer.write(side_by_side(picture.rgb, eye), picture.pts - plan.timestamps[start])
            if at <= middle < at + len(pictures):
                k = middle - at
                write_preview(journal.sheet, left[k], made.right[k], made.disparity[k], made.occlusion[k])
            at += len(pictures)
    os.replace(part, journal.segment(number))


def _finish(journal: Checkpoint, plan: ShotPlan, output: Path, say: Callable[[str], None]) -> None:
    starts = [plan.timestamps[start] * plan.info.time_base for start, _ in plan.shots]
    segments = [(journal.segment(number), Fraction(start)) for number, start in enumerate(starts)]
    whole = journal.film.with_suffix(output.suffix)
    left_out = mux_film(segments, plan.info.path, whole, until=plan.end_seconds if plan.error else None)
    for what in left_out:
        say(f"warning: {what} of the film does not fit into {output.suffix} and is left out")
    os.replace(whole, output)

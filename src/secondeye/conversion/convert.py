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

from secondeye.clips import frames_from_pictures
from secondeye.conversion.journal import Journal, open_journal
from secondeye.conversion.plan import Plan, make_plan
from secondeye.conversion.render import render
from secondeye.conversion.settings import Settings
from secondeye.conversion.sheet import write_sheet
from secondeye.conversion.shot_depth import ShotDepth, estimate_shot
from secondeye.depth import DepthEstimator, best_available, make_depth_estimator
from secondeye.disk import require_disk
from secondeye.packing import side_by_side
from secondeye.process import alone_in
from secondeye.refusal import Refusal
from secondeye.video.join import can_hold_sound, join_film
from secondeye.video.probe import FilmInfo, probe
from secondeye.video.read import Picture, read_pictures
from secondeye.video.write import FilmWriter

CONTAINERS = (".mp4", ".mov", ".mkv")
_WINDOW = 8  # frames in memory at a time; the estimators hold a few more
_LEAST_TRUST = 0.35  # strength left to a shot whose depth is a guess (ours)
_BYTES_PER_PIXEL = 0.06  # of H.264 at crf 16, both eyes; measured on noisy footage
_SPILL_BYTES_PER_FRAME = 4 * 384 * 384


@dataclass(frozen=True)
class Converted:
    """What a conversion came to."""

    output: Path
    frames: int
    broken: str  # why the film ends early; "" when it does not


def convert(
    film: Path,
    output: Path | None,  # None: beside the film, as NAME_sbs.mp4, or .mkv where mp4 can not hold its sound
    settings: Settings,
    *,
    sheet: Path | None = None,  # where to put a picture of what was done
    say: Callable[[str], None] = print,
) -> Converted:
    """Convert a film to full side-by-side; the output appears under its name when it is whole.

    Frame count, time stamps, pixel shape, sound and subtitles are the source's. Interrupted, the same call
    continues after the last finished shot. Raises BadFilm and Refusal with one line for a user's mistake.
    """
    info = probe(film)
    output = _checked_output(film, output)
    if info.high_dynamic_range:
        raise Refusal(f"{film}: is HDR (PQ or HLG), which 8 bits would show wrong; tone-map it to SDR first")
    settings = _choose(settings, say)
    estimator = make_depth_estimator(settings.depth)
    journal = open_journal(output, info, settings)
    with alone_in(journal.folder):
        plan = _plan(journal, info)
        _tell(plan, say)
        _require_room(plan, output)
        _convert_shots(journal, plan, settings, estimator, say)
        _finish(journal, plan, output, say)
        if sheet:
            shutil.move(journal.sheet, sheet)
        journal.remove()
    return Converted(output, len(plan.stamps), plan.broken)


def _choose(settings: Settings, say: Callable[[str], None]) -> Settings:
    """Settings with every `auto` decided, and said."""
    depth, why = settings.depth, ""
    if depth == "auto":
        depth = best_available()
        why = " (no weights of a learned model on this machine)" if depth == "motion" else ""
    say(f"depth: {depth}{why}; holes: fill (needs no weights)")
    return replace(settings, depth=depth, inpainter="fill")


def _tell(plan: Plan, say: Callable[[str], None]) -> None:
    info = plan.info
    sound = ", ".join(info.sound) or "none"
    say(f"{info.path}: {info.width}x{info.height}, {float(info.fps):.3f} fps, sound: {sound}")
    if info.bits > 8:
        say(f"warning: {info.path} has {info.bits} bits a channel; the output has 8")
    if plan.broken:
        say(f"warning: {plan.broken}; the good part is converted")


def _require_room(plan: Plan, output: Path) -> None:
    """The segments and the film made of them lie on the disk together, and the depth of one shot."""
    pixels = len(plan.stamps) * plan.info.width * plan.info.height * 2
    longest = max(stop - start for start, stop in plan.shots)
    need = 2 * pixels * _BYTES_PER_PIXEL + longest * _SPILL_BYTES_PER_FRAME
    require_disk(output.parent, need, "convert")


def _checked_output(film: Path, output: Path | None) -> Path:
    if output is None:
        suffix = ".mp4" if can_hold_sound(film, ".mp4") else ".mkv"
        output = film.with_name(f"{film.stem}_sbs{suffix}")
    if output.is_dir():
        raise Refusal(f"{output}: is a folder; name the film to write")
    if output.suffix not in CONTAINERS:
        raise Refusal(f"{output}: the name must end in {', '.join(CONTAINERS)}")
    if output.exists() and output.samefile(film):
        raise Refusal(f"{output}: is the film itself; give --output another name")
    if not output.parent.is_dir():
        raise Refusal(f"{output.parent}: there is no such folder")
    try:
        tempfile.TemporaryFile(dir=output.parent).close()
    except OSError as error:
        raise Refusal(f"{output.parent}: can not be written to ({error.strerror})") from error
    if not can_hold_sound(film, output.suffix):
        raise Refusal(
            f"{output}: {output.suffix} can not hold the film's sound; give --output a name in .mkv"
        )
    return output


def _plan(journal: Journal, info: FilmInfo) -> Plan:
    plan = journal.recall(info)
    if plan is None:
        with tqdm(total=info.frames or None, desc="looking for cuts", unit="frame", leave=False) as bar:
            plan = make_plan(info, bar.update)
        journal.remember(plan)
    return plan


def _convert_shots(
    journal: Journal, plan: Plan, settings: Settings, estimator: DepthEstimator, say: Callable[[str], None]
) -> None:
    waiting = [n for n in range(len(plan.shots)) if not journal.segment(n).exists()]
    done = len(plan.shots) - len(waiting)
    say(
        f"{len(plan.stamps)} frames in {len(plan.shots)} shots"
        + (f", {done} of them finished before" if done else "")
    )
    frames = sum(plan.shots[n][1] - plan.shots[n][0] for n in waiting)
    # A frame counts twice: once for its depth, once for its right eye.
    with tqdm(total=2 * frames, desc="converting", unit="frame") as bar:
        for number in waiting:
            start, stop = plan.shots[number]
            windows = _windows(_shot(plan, start, stop), bar.update)
            depth = estimate_shot((frames for _, frames in windows), estimator, journal.spill)
            strength = settings.strength_percent * max(_LEAST_TRUST, depth.confidence)
            bar.write(
                f"shot {number + 1}, frames {start} to {stop - 1}: depth confidence {depth.confidence:.2f}, "
                f"strength {strength:.2f} %"
            )
            _render_shot(journal, plan, number, depth, strength, settings, bar.update)
            journal.spill.unlink()


def _shot(plan: Plan, start: int, stop: int) -> Iterator[Picture]:
    return islice(read_pictures(plan.info.path, start_pts=plan.stamps[start]), stop - start)


def _windows(
    pictures: Iterable[Picture], advance: Callable[[int], object]
) -> Iterator[tuple[list[Picture], Tensor]]:
    """Pictures in groups, with their frames [t, 3, H, W]."""
    pictures = iter(pictures)
    while window := list(islice(pictures, _WINDOW)):
        yield window, frames_from_pictures(np.stack([picture.rgb for picture in window]))
        advance(len(window))


def _render_shot(
    journal: Journal,
    plan: Plan,
    number: int,
    depth: ShotDepth,
    strength_percent: float,
    settings: Settings,
    advance: Callable[[int], object],
) -> None:
    start, stop = plan.shots[number]
    info, middle, memory = plan.info, len(plan.stamps) // 2, None
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
        windows = _windows(_shot(plan, start, stop), advance)
        at = start
        for (pictures, left), raw in zip(windows, depth.windows(_WINDOW), strict=True):
            made = render(
                left, raw, strength_percent=strength_percent, convergence=settings.convergence, memory=memory
            )
            memory = made.memory
            right = (made.right * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
            for picture, eye in zip(pictures, right, strict=True):
                writer.write(side_by_side(picture.rgb, eye), picture.pts - plan.stamps[start])
            if at <= middle < at + len(pictures):
                k = middle - at
                write_sheet(journal.sheet, left[k], made.right[k], made.disparity[k], made.occlusion[k])
            at += len(pictures)
    os.replace(part, journal.segment(number))


def _finish(journal: Journal, plan: Plan, output: Path, say: Callable[[str], None]) -> None:
    starts = [plan.stamps[start] * plan.info.time_base for start, _ in plan.shots]
    segments = [(journal.segment(number), Fraction(start)) for number, start in enumerate(starts)]
    whole = journal.film.with_suffix(output.suffix)
    left_out = join_film(segments, plan.info.path, whole, until=plan.until if plan.broken else None)
    for what in left_out:
        say(f"warning: {what} of the film does not fit into {output.suffix} and is left out")
    os.replace(whole, output)

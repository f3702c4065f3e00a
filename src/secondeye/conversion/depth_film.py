"""Write the depth of a film as maps that `secondeye convert --depth-maps` and other programs read.

OUTPUT is a folder (16-bit PNG, one for each frame), .npz (`depth`, uint16 [frames, height, width]) or .mkv
(FFV1, 16 bits). Values are depth from 0, the farthest point of a shot, to 65535, the nearest.
"""

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from secondeye import __version__
from secondeye.conversion.checkpoint import Checkpoint, open_checkpoint, remove_if_published
from secondeye.conversion.convert import Log, choose_depth, largest_map, load_or_plan_shots, probe_source
from secondeye.conversion.depth_record import NEAR, RECORD, is_own, record_of
from secondeye.conversion.memory import choose_window_frames
from secondeye.conversion.provenance import describe_depth
from secondeye.conversion.segments import segment_frames
from secondeye.conversion.settings import ConversionSettings
from secondeye.conversion.shot_depth import STEPS, ShotDepth, estimate_shot
from secondeye.conversion.shots import (
    depth_reader,
    frames_from,
    load_estimator,
    picture_of,
    picture_sizes,
    require_memory,
)
from secondeye.depth import DepthEstimator
from secondeye.film.shots import ShotPlan
from secondeye.imaging.arrays import resize
from secondeye.system.disk import explain_full_disk, require_free_space
from secondeye.system.errors import UserError
from secondeye.system.files import publish, write_atomic
from secondeye.video.probe import FilmInfo
from secondeye.video.write import write_gray_film

SUFFIXES = (".npz", ".mkv")
_READ_FRAMES = 16
_RAW_BYTES, _STORED_BYTES = 4, 2  # per pixel: of raw depth, and of a map before compression
_OWN_FILE = re.compile(rf"\d{{8}}\.png|{re.escape(RECORD)}")


@dataclass(frozen=True)
class WrittenDepth:
    """Finished depth maps."""

    output: Path
    frames: int
    damage: str  # what of the film could not be decoded; "" for a whole film


def write_depth(
    film: Path,
    output: Path,
    settings: ConversionSettings,
    *,
    overwrite: bool = False,  # replace existing maps
    log: Log = print,
) -> WrittenDepth:
    """Estimate the depth of a film and write it to a folder, .npz or .mkv, with its JSON file.

    The output appears under its name when it is complete. After an interruption the same call resumes, to the
    same bytes. Raises UserError for unusable input or output, and when the disk is full.
    """
    info = probe_source(film, settings)
    remove_if_published(output.resolve())
    _check_output(output, film, overwrite)
    # A bundle's inpainter is not used, and takes no memory.
    settings = replace(settings, inpainter="fill", tiles=None, steps=None)
    settings = choose_depth(settings, log, inpaints=False)
    window_frames = choose_window_frames(info, settings, 1)
    estimator = load_estimator(settings)
    assert estimator is not None  # there are no depth maps yet
    require_memory(estimator, [(info.height, info.width)])
    target = output.resolve()
    full_disk = explain_full_disk(target.parent, "free some and run the same command again, to continue")
    with full_disk, open_checkpoint(target, info, settings) as checkpoint:
        plan = load_or_plan_shots(checkpoint, info)
        require_memory(estimator, picture_sizes(plan))
        _require_free_space(checkpoint, plan, target, settings)
        depths = _estimate(checkpoint, plan, estimator, window_frames)
        size = _map_size(plan, depths)
        record = _describe(film, settings, plan, depths, size)
        _write(checkpoint, target, _maps(plan, depths, size), record, info)
        checkpoint.remove()
    return WrittenDepth(output, len(plan.timestamps), plan.damage)


def _check_output(output: Path, film: Path, overwrite: bool) -> None:
    if output.suffix.lower() not in ("", *SUFFIXES):
        raise UserError(f"{output}: the name must end in {' or '.join(SUFFIXES)}, or in nothing for a folder")
    if not output.resolve().parent.is_dir():
        raise UserError(f"{output.parent}: folder does not exist")
    if not output.exists():
        record = record_of(output.resolve())
        if output.suffix and record.exists() and not overwrite and not is_own(output.resolve()):
            raise UserError(
                f"{record}: exists and was not written with depth maps; give --output another name, or add "
                "--overwrite"
            )
        return
    if output.samefile(film):
        raise UserError(f"{output}: is the input film; give --output another name")
    if output.is_dir() != (not output.suffix):
        raise UserError(f"{output}: exists and is of another kind; give --output another name")
    if output.is_dir() and any(output.iterdir()) and not _holds_only_maps(output):
        raise UserError(f"{output}: holds other files; give --output a new folder")
    if not overwrite:
        raise UserError(f"{output}: already exists; give --output another name, or add --overwrite")


def _holds_only_maps(folder: Path) -> bool:
    """Return whether a folder holds what `secondeye depth` writes and nothing else."""
    return is_own(folder) and all(_OWN_FILE.fullmatch(each.name) for each in folder.iterdir())


def _require_free_space(
    checkpoint: Checkpoint, plan: ShotPlan, target: Path, settings: ConversionSettings
) -> None:
    """Raise UserError unless the rest of the raw depth of all shots, and the maps, fit on the disk."""
    frames_pixels = len(plan.timestamps) * plan.info.height * plan.info.width
    raw_bytes, stored_bytes = 0, 0
    for number, (start, stop) in enumerate(plan.shots):
        height, width = picture_of(plan, number).size
        pixels = largest_map(settings, height, width)
        raw_bytes += _RAW_BYTES * (stop - start) * pixels
        # Maps show whole frames, as fine as the depth of any shot.
        stored_bytes = max(stored_bytes, -(-_STORED_BYTES * frames_pixels * pixels // (height * width)))
    raw = [checkpoint.raw_depth(start) for start, _ in plan.shots]
    done_bytes = sum(path.stat().st_size for path in raw if path.exists())
    require_free_space(target.parent, raw_bytes + stored_bytes - done_bytes, "depth")


def _estimate(
    checkpoint: Checkpoint, plan: ShotPlan, estimator: DepthEstimator, window_frames: int
) -> list[ShotDepth]:
    """Estimate all shots, or the rest of them."""
    reader = depth_reader(plan.info, plan, estimator)
    depths = []
    with tqdm(total=len(plan.timestamps), desc="depth", unit="frame") as bar:
        for number, shot in enumerate(plan.shots):
            depths.append(
                estimate_shot(
                    partial(frames_from, reader, shot, picture_of(plan, number), window_frames),
                    estimator,
                    checkpoint.raw_depth(shot[0]),
                    save_every=segment_frames(plan.info.fps),
                    on_frames=bar.update,
                )
            )
    return depths


def _map_size(plan: ShotPlan, depths: list[ShotDepth]) -> tuple[int, int]:
    """Return height and width of the maps: of whole frames, as fine as the depth of any shot."""
    sizes = [picture_of(plan, number).size for number in range(len(depths))]
    (height, width), finest = max(
        zip(sizes, depths, strict=True), key=lambda shot: shot[1].height / shot[0][0]
    )
    return round(plan.info.height * finest.height / height), round(plan.info.width * finest.width / width)


def _describe(
    film: Path, settings: ConversionSettings, plan: ShotPlan, depths: list[ShotDepth], size: tuple[int, int]
) -> dict[str, Any]:
    return {
        "secondeye": __version__,
        "film": film.name,
        "depth": describe_depth(settings),
        "orientation": NEAR,
        "normalised": True,
        "frames": len(plan.timestamps),
        "height": size[0],
        "width": size[1],
        "shots": [
            {"start": start, "stop": stop, "confidence": depth.confidence}
            for (start, stop), depth in zip(plan.shots, depths, strict=True)
        ],
    }


def _write(
    checkpoint: Checkpoint,
    target: Path,
    maps: Iterator[np.ndarray],  # uint16 [h, w]
    record: dict[str, Any],
    info: FilmInfo,
) -> None:
    """Write the maps into the checkpoint, and move them to the output."""
    part = checkpoint.folder / f"depth_maps{target.suffix}"
    text = json.dumps(record, indent=1) + "\n"
    if target.suffix:
        if target.suffix.lower() == ".npz":
            _write_npz(part, maps, (record["frames"], record["height"], record["width"]))
        else:
            write_gray_film(part, maps, info.fps)
        write_atomic(record_of(target), text)
        checkpoint.finish(part)
        publish(part, target)
        return
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for number, depth in enumerate(maps):
        _, content = cv2.imencode(".png", depth)
        (part / f"{number:08d}.png").write_bytes(content.tobytes())
    (part / RECORD).write_text(text)
    checkpoint.finish(part)
    if target.exists():
        # Deleted with the checkpoint: a kill never leaves half of the old maps under their name.
        replaced = checkpoint.folder / "depth_replaced"
        shutil.rmtree(replaced, ignore_errors=True)
        target.rename(replaced)
    part.rename(target)


def _maps(
    plan: ShotPlan, depths: list[ShotDepth], size: tuple[int, int]
) -> Iterator[np.ndarray]:  # uint16 [h, w]
    """Yield the map of each frame; it is 0 in the bands of a letterbox."""
    for number, depth in enumerate(depths):
        rows, columns = picture_of(plan, number).in_map(*size)
        inside = rows.stop - rows.start, columns.stop - columns.start
        for start in range(0, depth.frames, _READ_FRAMES):
            window = resize(depth.read(start, min(depth.frames, start + _READ_FRAMES)), *inside)
            maps = np.zeros((len(window), *size), np.uint16)
            maps[:, rows, columns] = np.rint(window[:, 0].numpy() * np.float32(STEPS)).astype(np.uint16)
            yield from maps


def _write_npz(path: Path, maps: Iterator[np.ndarray], shape: tuple[int, int, int]) -> None:
    """Write an array map by map; a long film's does not fit into memory."""
    entry = zipfile.ZipInfo("depth.npy")  # with a fixed date
    with zipfile.ZipFile(path, "w") as archive, archive.open(entry, "w", force_zip64=True) as file:
        header = {"descr": "<u2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for depth in maps:
            file.write(depth.astype("<u2").tobytes())

"""A conversion as a run: its film, duration, speed, version and preview."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secondeye.conversion.provenance import read_record
from secondeye.film.layouts import anaglyph
from secondeye.film.packing import INTERLEAVED, packing_axis, unpack
from secondeye.report.contact_sheet import write_contact_sheet
from secondeye.run_folder import Run, open_run, working_on
from secondeye.video.probe import probe
from secondeye.video.read import container_and_frame_count, sample_frames

_PREVIEW_FRAMES, _PREVIEW_WIDTH_PX = 3, 1280  # of both views together
_NOT_RECORDED = "not recorded"  # by the version that converted the film


@dataclass(frozen=True)
class ConversionParams:
    """What MLflow's tables of conversions compare."""

    version: str
    depth: str
    inpainter: str
    strength_percent: str
    convergence: str
    views: str
    layout: str
    codec: str
    bit_depth: str
    crf: str
    preset: str


def record_conversion(
    runs: Path,
    film: Path,  # a converted one
    seconds: float | None = None,  # that the conversion took
) -> Run:
    """Write the run folder of a conversion; a film that has one already keeps it. Raises UnreadableFilm."""
    record = read_record(film) or {}
    identity = f"{film.name} {film.stat().st_size} {json.dumps(record, sort_keys=True)}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:32]
    run = open_run(runs, key, "convert", _params(record), _tags(film, record))
    if run.finished:
        return run
    with working_on(run):
        run.rewind(0)
        run.log(0, _metrics(film, seconds))
        _write_preview(run.picture("preview.png"), film, record.get("packing", "sbs"))
        run.finish({})
    return run


def _params(record: Mapping[str, Any]) -> ConversionParams:
    settings = record.get("settings", {})
    names = ("strength_percent", "convergence", "views", "layout", "codec", "bit_depth", "crf", "preset")
    return ConversionParams(
        str(record.get("version") or "none") if record else _NOT_RECORDED,
        *(str(record[part]["name"]) if record else _NOT_RECORDED for part in ("depth", "inpainter")),
        *(str(settings.get(name, _NOT_RECORDED)) for name in names),
    )


def _tags(film: Path, record: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a run: the film and its source, and the version, weights and licences it has."""
    tags = {"film": film.name, "source": str(record.get("source", _NOT_RECORDED))}
    if record.get("version"):
        tags["version"] = str(record["version"])
    for part in ("depth", "inpainter"):
        for name in ("weights", "licences"):
            if value := record.get(part, {}).get(name):
                tags[f"{name}.{part}"] = str(value)
    return tags


def _metrics(film: Path, seconds: float | None) -> dict[str, float]:
    info = probe(film)
    frames = info.frames or container_and_frame_count(film)[1]
    metrics = {
        "frames": frames,
        "frames_per_second": round(float(info.fps), 3),
        "duration_seconds": round(frames / float(info.fps), 3),
        "size_mib": round(film.stat().st_size / 2**20, 3),
    }
    if seconds is not None:
        metrics |= {
            "conversion_seconds": round(seconds, 1),
            "converted_frames_per_second": round(frames / seconds, 3),
        }
    return metrics


def _write_preview(
    path: Path,
    film: Path,
    packing: str,  # "" for a film of one view, or an anaglyph
) -> None:
    """Write both views and their anaglyph at a few times of the film; of a film of one view its frames."""
    info = probe(film)
    scale = min(1.0, _PREVIEW_WIDTH_PX / info.width)
    size = 2 * round(info.height * scale / 2), 2 * round(info.width * scale / 2)
    rows = []
    if packing_axis(packing) == INTERLEAVED:  # scaling would mix its rows
        size = info.height, info.width
    for frame in sample_frames(film, _PREVIEW_FRAMES, size):
        if not packing:
            rows.append([("frame", frame)])
            continue
        left, right = (np.ascontiguousarray(view) for view in unpack(frame, packing))
        rows.append([("left eye", left), ("right eye", right), ("anaglyph", anaglyph(left, right))])
    write_contact_sheet(path, rows)

"""A conversion as a run: its film, duration, speed, version and preview."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secondeye.conversion.provenance import read_record
from secondeye.run_folder import Run, open_run, working_on
from secondeye.system.errors import UserError
from secondeye.video.probe import count_frames, probe

_NOT_RECORDED = "not recorded"  # by the version that converted the film


@dataclass(frozen=True)
class ConversionParams:
    """What MLflow's tables of conversions compare."""

    version: str
    depth: str
    inpainter: str
    strength_percent: str
    convergence: str
    crf: str
    preset: str


def record_conversion(
    runs: Path,
    film: Path,  # a converted one
    seconds: float | None = None,  # that the conversion took
    preview: Path | None = None,  # a .png to show with the run
) -> Run:
    """Write the run folder of a conversion; a film that has one already keeps it. Raises UnreadableFilm.

    Raises UserError if the preview does not exist.
    """
    if preview is not None and not preview.is_file():
        raise UserError(f"{preview}: file does not exist; give --preview the file that convert wrote")
    record = read_record(film) or {}
    identity = f"{film.name} {film.stat().st_size} {json.dumps(record, sort_keys=True)}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:32]
    run = open_run(runs, key, "convert", _params(record), _tags(film, record))
    if run.finished:
        return run
    with working_on(run):
        run.rewind(0)
        run.log(0, _metrics(film, seconds))
        if preview is not None:
            shutil.copyfile(preview, run.picture("preview.png"))
        run.finish({})
    return run


def _params(record: Mapping[str, Any]) -> ConversionParams:
    settings = record.get("settings", {})
    names = ("strength_percent", "convergence", "crf", "preset")
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
    frames = info.frames or count_frames(film)
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

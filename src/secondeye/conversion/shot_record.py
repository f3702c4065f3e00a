"""What each shot of an unfinished conversion was rendered with, so that only changed shots are made again."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from secondeye.conversion.checkpoint import Checkpoint
from secondeye.conversion.comfort import ShotStereo, StereoRequest, choose_stereo, measure_profile
from secondeye.conversion.plan_file import (
    PlannedShot,
    ShotLine,
    request_shots,
    write_plan_file,
)
from secondeye.conversion.settings import ConversionSettings
from secondeye.conversion.shot_depth import ShotDepth
from secondeye.film.shots import ShotPlan


class ShotRecord(NamedTuple):
    """What was asked of a shot, and what it was rendered with."""

    request: StereoRequest
    stereo: ShotStereo
    subject_depth: float  # [0, 1]
    confidence: float  # of the depth, [0, 1]

    def satisfies(self, request: StereoRequest) -> bool:
        """Return whether a shot of which this is asked was rendered so already."""
        stated = (request.strength_percent, request.convergence)
        return request == self.request or (request.is_exact and stated == self.stereo)


def choose_shot(depth: ShotDepth, request: StereoRequest) -> ShotRecord:
    """Choose strength and convergence of a shot from its depth."""
    profile = measure_profile(depth)
    stereo = choose_stereo(profile, depth.confidence, request)
    return ShotRecord(request, stereo, round(profile.subject, 3), round(depth.confidence, 3))


def save_record(checkpoint: Checkpoint, start: int, record: ShotRecord) -> None:
    """Save the record of the shot that begins at a frame."""
    checkpoint.save_shot(start, record._asdict())


def load_record(checkpoint: Checkpoint, start: int) -> ShotRecord | None:
    """Return the record of a shot; None if nothing of it was rendered."""
    stored = checkpoint.load_shot(start)
    if stored is None:
        return None
    request, stereo = StereoRequest(*stored.pop("request")), ShotStereo(*stored.pop("stereo"))
    return ShotRecord(request, stereo, **stored)


def forget_changed(checkpoint: Checkpoint, plan: ShotPlan, requests: Sequence[StereoRequest]) -> int:
    """Delete what was rendered of shots of which something else is asked now; return their number."""
    changed = [
        shot
        for shot, request in zip(plan.shots, requests, strict=True)
        if (record := load_record(checkpoint, shot[0])) is not None and not record.satisfies(request)
    ]
    checkpoint.forget_shots(changed)
    return len(changed)


def request_stereo(
    settings: ConversionSettings,
    plan: ShotPlan,
    path: Path | None,  # of --plan
    planned: Sequence[PlannedShot] | None,  # its content; None if it does not exist
) -> list[StereoRequest]:
    """Return what is asked of every shot. Raises UserError for a shot that the film does not have."""
    request = StereoRequest(settings.strength_percent, settings.convergence, is_exact=False)
    if path is None or planned is None:
        return [request] * len(plan.shots)
    return request_shots(path, planned, plan.shots, request)


def write_plan(checkpoint: Checkpoint, plan: ShotPlan, path: Path, depth: str) -> None:
    """Write what every shot was rendered with, once all are."""
    lines = []
    for start, stop in plan.shots:
        record = load_record(checkpoint, start)
        assert record is not None, start
        seconds = round(float(plan.timestamps[start] * plan.info.time_base), 3)
        lines.append(ShotLine(start, stop, seconds, *record.stereo, record.subject_depth, record.confidence))
    write_plan_file(path, plan.info.path, depth, lines)

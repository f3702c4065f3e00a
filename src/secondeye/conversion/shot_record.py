"""What each shot of an unfinished conversion was rendered with, so that only changed shots are made again."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from secondeye.conversion.checkpoint import Checkpoint
from secondeye.conversion.comfort import (
    DepthProfile,
    ShotStereo,
    StereoRequest,
    choose_stereo,
    measure_profile,
)
from secondeye.conversion.plan_file import ShotLine, write_plan_file
from secondeye.conversion.shot_depth import ShotDepth
from secondeye.film.shots import ShotPlan


class ShotRecord(NamedTuple):
    """What is known of a shot's depth, and what the shot was rendered with."""

    profile: DepthProfile
    confidence: float  # of the depth, [0, 1]
    stereo: ShotStereo

    def satisfies(self, request: StereoRequest) -> bool:
        """Return whether the shot was rendered with the values that this request leads to."""
        return choose_stereo(self.profile, self.confidence, request) == self.stereo


def choose_shot(depth: ShotDepth, request: StereoRequest) -> ShotRecord:
    """Choose strength and convergence of a shot from its depth."""
    profile = measure_profile(depth)
    return ShotRecord(profile, depth.confidence, choose_stereo(profile, depth.confidence, request))


def save_record(checkpoint: Checkpoint, start: int, record: ShotRecord) -> None:
    """Save the record of the shot that begins at a frame."""
    checkpoint.save_shot(start, record._asdict() | {"profile": asdict(record.profile)})


def load_record(checkpoint: Checkpoint, start: int) -> ShotRecord | None:
    """Return the record of a shot; None if nothing of it was rendered."""
    stored = checkpoint.load_shot(start)
    if stored is None:
        return None
    return ShotRecord(DepthProfile(**stored["profile"]), stored["confidence"], ShotStereo(*stored["stereo"]))


def forget_changed(checkpoint: Checkpoint, plan: ShotPlan, requests: Sequence[StereoRequest]) -> int:
    """Delete what was rendered of shots with other values than requested; return their number."""
    changed = [
        shot
        for shot, request in zip(plan.shots, requests, strict=True)
        if (record := load_record(checkpoint, shot[0])) is not None and not record.satisfies(request)
    ]
    checkpoint.forget_shots(changed)
    return len(changed)


def write_plan(checkpoint: Checkpoint, plan: ShotPlan, path: Path, depth: str) -> None:
    """Write what every shot was rendered with, once all are."""
    lines = []
    for start, stop in plan.shots:
        record = load_record(checkpoint, start)
        assert record is not None, start
        seconds = round(float(plan.timestamps[start] * plan.info.time_base), 3)
        known = round(record.profile.subject, 3), round(record.confidence, 3)
        lines.append(ShotLine(start, stop, seconds, *record.stereo, *known))
    write_plan_file(path, plan.info.path, depth, lines)

"""Output of `secondeye score`: the scores of a film as text or JSON, with warnings."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict

from secondeye.evaluation.columns import COLUMNS, GROUPS, Column
from secondeye.evaluation.film_score import AlignedScore, FilmScore
from secondeye.evaluation.view_streams import format_size
from secondeye.system.text import pluralize

_DIRECTIONS = {"higher": "higher is better", "lower": "lower is better", "one": "1 is best", "": ""}
_FLAT_PERCENT = 0.1  # of the width: a smaller disparity range counts as no depth
# Of the disparity behind the screen: guidelines, and `convert`, give half as much in front of it.
_BEHIND_SHARE = 0.4
# Scores that another strength or convergence changes.
_ALIGNED = {
    "haarpsi": "HaarPSI",
    "vif": "VIF",
    "psnr_db": "PSNR, dB",
    "psnr_visible_db": "PSNR, visible, dB",
    "psnr_disoccluded_db": "PSNR, disoccluded, dB",
    "psnr_border_db": "PSNR, border, dB",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "worst_block": "worst block",
    "siou": "SIoU",
    "epe_px": "EPE, px",
    "d1_percent": "D1, %",
    "tepe_px": "TEPE, px",
}
_JUMP = Column("disparity_jump_percent", "disparity jump at cuts, % of width", "lower", 2)


def to_json(score: FilmScore) -> str:
    """Return the scores as one JSON object; null without anything to score."""
    content = asdict(score)
    content[_JUMP.name] = _none_if_nan(score.disparity_jump_percent)
    content["warnings"] = find_warnings(score)
    content["scores"] = _without_nan(score.scores)
    if score.aligned is not None:
        content["aligned"] |= {
            "scale": _none_if_nan(score.aligned.scale),
            "shift_percent": _none_if_nan(score.aligned.shift_percent),
            "scores": _without_nan(score.aligned.scores),
            "flat_scores": _without_nan(score.aligned.flat_scores),
        }
    return json.dumps(content, indent=1, allow_nan=False)


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _without_nan(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _none_if_nan(value) for name, value in scores.items()}


def to_text(score: FilmScore) -> str:
    """Return the scores in groups, one a line, and at the end which scores are missing and why."""
    counts = (
        f"{pluralize(score.frames, 'frame')}, {score.scored_frames} of them scored, "
        f"{pluralize(len(score.cuts), 'cut')}"
    )
    head = [f"{format_size(score.size)} px, {score.fps:.3f} fps, {counts}"]
    if score.region_percent:
        shares = ", ".join(f"{name} {percent:.2f} %" for name, percent in score.region_percent.items())
        head.append(f"the true right eye: {shares}")
    head += [f"warning: {warning}" for warning in find_warnings(score)]
    blocks, missing = ["\n".join(head)], list[str]()
    values = score.scores | ({_JUMP.name: score.disparity_jump_percent} if score.cuts else {})
    for heading, group in (GROUPS | {"Comfort": (*GROUPS["Comfort"], _JUMP)}).items():
        columns = [column for column in group if column.name in values]
        known = [column for column in columns if not math.isnan(values[column.name])]
        if known:
            blocks.append("\n".join([heading, *(_line(column, values[column.name]) for column in known)]))
            missing += [column.heading for column in columns if column not in known]
        elif columns:
            missing.append(heading)
    if score.aligned is not None:
        blocks.append(_aligned_block(score.aligned))
    if missing:
        reason = "nothing to score, or no weights" if "truth" in score.films else "no --truth"
        blocks.append(f"not scored ({reason}): {'; '.join(missing)}")
    return "\n\n".join(blocks)


def _aligned_block(aligned: AlignedScore) -> str:
    """Return the aligned scores, and in brackets those of a film without depth."""
    measured = "" if math.isnan(aligned.scale) else f" (depth {aligned.scale:.2f} times the true one)"
    head = (
        f"Not aligned: {aligned.obstacle}{measured}. Against the true right eye"
        if aligned.obstacle
        else f"Aligned: against the true right eye at {aligned.scale:.2f} times its depth, moved by "
        f"{aligned.shift_percent:+z.2f} % of the width"
    )
    lines = [f"{head}; in brackets: a film without depth at the same convergence"]
    for name, heading in _ALIGNED.items():
        value, flat, column = aligned.scores[name], aligned.flat_scores[name], COLUMNS[name]
        if not math.isnan(value):
            number = f"{value:.{column.digits}f} ({flat:.{column.digits}f})"
            lines.append(f"  {heading:<30}{number:>20}  {_DIRECTIONS[column.better]}".rstrip())
    return "\n".join(lines)


def find_warnings(score: FilmScore) -> list[str]:
    """Return likely mistakes that the scores alone would hide."""
    far, near = score.scores["far_percent"], score.scores["near_percent"]
    warnings = []
    if near - far < _FLAT_PERCENT:
        warnings.append("both eyes are nearly identical or only shifted, which most scores do not show")
    elif near < -far * _BEHIND_SHARE and far < -_FLAT_PERCENT:
        warnings.append("most of the film is far behind the screen; are the eyes swapped?")
    if score.region_percent and math.isnan(score.scores["disparity_correlation"]):
        warnings.append("the true right eye has no depth against the left eye; is it the left eye?")
    if score.is_half_shifted:
        warnings.append(
            "an eye was made by --views both: it belongs to the other eye of that conversion, not to this "
            "one or a true right eye"
        )
    return warnings


def _line(column: Column, value: float) -> str:
    return f"  {column.heading:<36}{value:>10.{column.digits}f}  {_DIRECTIONS[column.better]}".rstrip()

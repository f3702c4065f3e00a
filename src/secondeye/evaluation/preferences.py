"""Preferences of participants in a two-alternative forced choice, with intervals.

The answers are CSV files that participants saved; nothing in them is trusted.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

from secondeye.evaluation.bootstrap import bootstrap_interval
from secondeye.report.document import Bold, Section, Table, to_markdown
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize

COLUMNS = (
    *("study", "participant", "trial", "film", "frame"),
    *("left_method", "right_method", "choice", "seconds"),
)
MAX_NAME = 100  # characters
_MAX_BYTES = 2**20  # of a file: more than 10,000 answers
_RESAMPLES = 10_000
_MIN_PARTICIPANTS = 5  # fewer say nothing about others


class Answer(NamedTuple):
    """One answer: which of two conversions of a moment a participant chose."""

    study: str
    participant: str
    film: str
    frame: int
    left: str  # method
    right: str  # method
    chosen: str  # method


class Preference(NamedTuple):
    """How often one method was chosen over another; shares are in [0, 1]."""

    method: str
    other: str
    wins: int
    answers: int
    wilson: tuple[float, float]  # as if all answers were independent
    participants: int
    by_participant: tuple[float, float]  # bootstrap over participants, then their answers; NaN for one


def read_answers(paths: Sequence[Path]) -> list[Answer]:
    """Read all answers. Raises UserError for the first line that the page cannot have written."""
    by_trial: dict[tuple[object, ...], Answer] = {}
    for path in paths:
        _read_file(path, by_trial)
    answers = list(by_trial.values())
    studies = sorted({answer.study for answer in answers})
    if len(studies) > 1:
        raise UserError(f"the answers are of {len(studies)} different pages: {', '.join(studies)}")
    if not answers:
        raise UserError(f"{paths[0]}: contains no answer")
    return answers


def _read_file(path: Path, by_trial: dict[tuple[object, ...], Answer]) -> None:
    """Add the answers of a file to those of participant, moment and methods."""
    if path.stat().st_size > _MAX_BYTES:
        raise UserError(f"{path}: is larger than {_MAX_BYTES // 2**20} MiB; not a file of answers")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(csv.reader(StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file of answers ({error})") from error
    if not rows or tuple(rows[0]) != COLUMNS:
        raise UserError(f"{path}: the first line must be {','.join(COLUMNS)}; save the answers again")
    for number, row in enumerate(rows[1:], start=2):
        answer = _parse_row(f"{path}, line {number}", row)
        key = (answer.participant, answer.film, answer.frame, *sorted((answer.left, answer.right)))
        if key in by_trial:
            raise UserError(f"{path}, line {number}: {answer.participant} answers a trial again; keep one")
        by_trial[key] = answer


def _parse_row(where: str, row: Sequence[str]) -> Answer:
    if len(row) != len(COLUMNS):
        raise UserError(f"{where}: has {len(row)} cells instead of {len(COLUMNS)}")
    cells = dict(zip(COLUMNS, row, strict=True))
    for name, cell in cells.items():
        if not 0 < len(cell) <= MAX_NAME or not cell.isprintable():
            raise UserError(f"{where}: {name} must be 1 to {MAX_NAME} printable characters")
    if not (cells["frame"].isascii() and cells["frame"].isdigit()):
        raise UserError(f"{where}: frame must be a number")
    if cells["choice"] not in ("left", "right"):
        raise UserError(f"{where}: choice must be left or right")
    left, right = cells["left_method"], cells["right_method"]
    if left == right:
        raise UserError(f"{where}: both sides show the same method")
    chosen = left if cells["choice"] == "left" else right
    return Answer(
        cells["study"], cells["participant"], cells["film"], int(cells["frame"]), left, right, chosen
    )


def find_preferences(answers: Sequence[Answer], *, confidence: float, seed: int) -> list[Preference]:
    """Return the preferences of each pair of methods, sorted by name."""
    pairs: dict[tuple[str, ...], list[Answer]] = defaultdict(list)
    for answer in answers:
        pairs[tuple(sorted((answer.left, answer.right)))].append(answer)
    return [_preference(pair, given, confidence, seed) for pair, given in sorted(pairs.items())]


def _preference(pair: tuple[str, ...], answers: Sequence[Answer], confidence: float, seed: int) -> Preference:
    method, other = pair
    chosen: Mapping[str, list[float]] = defaultdict(list)
    for answer in answers:
        chosen[answer.participant].append(float(answer.chosen == method))
    interval = (math.nan, math.nan)
    if len(chosen) > 1:
        interval = bootstrap_interval(chosen, resamples=_RESAMPLES, confidence=confidence, seed=seed)
    wins = sum(answer.chosen == method for answer in answers)
    wilson = wilson_interval(wins, len(answers), confidence)
    return Preference(method, other, wins, len(answers), wilson, len(chosen), interval)


def wilson_interval(wins: int, answers: int, confidence: float) -> tuple[float, float]:
    """Return the score interval of a share (Wilson 1927), which also holds for 0 and for all wins."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = wins / answers, z * z / answers
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / answers + spread / (4 * answers))
    return max(0.0, centre - half), min(1.0, centre + half)


def describe_preferences(answers: Sequence[Answer], *, confidence: float, seed: int) -> str:
    """Return the preferences as Markdown; a preference beyond chance is bold."""
    people = len({answer.participant for answer in answers})
    to_left = sum(answer.chosen == answer.left for answer in answers) / len(answers)
    rows = [_cells(found) for found in find_preferences(answers, confidence=confidence, seed=seed)]
    head = ("method", "over", "chosen", "share", "Wilson interval", "participants", "interval by participant")
    counts = f"{pluralize(len(answers), 'answer')} of {pluralize(people, 'participant')}"
    note = (
        f"{counts}; the left side was chosen in {100 * to_left:.0f} %. Intervals at confidence "
        f"{confidence:g}. Wilson's treats all answers as independent; the other is a bootstrap over "
        "participants, each with the same weight, and then their answers. A share is bold if that interval "
        f"excludes one half, with at least {_MIN_PARTICIPANTS} participants."
    )
    return to_markdown("Preferences", [Section("Forced choice", [Table("", (*head, "verdict"), rows, note)])])


def _cells(found: Preference) -> list[str]:
    low, high = found.by_participant
    share = f"{100 * found.wins / found.answers:.0f} %"
    verdict = "no difference"
    if found.participants < _MIN_PARTICIPANTS:
        verdict = f"fewer than {_MIN_PARTICIPANTS} participants"
    elif low > 0.5 or high < 0.5:
        share, verdict = Bold(share), f"{found.method if low > 0.5 else found.other} preferred"
    return [
        *(found.method, found.other, f"{found.wins} of {found.answers}", share, _percent(found.wilson)),
        *(str(found.participants), _percent(found.by_participant), verdict),
    ]


def _percent(interval: tuple[float, float]) -> str:
    return "-" if math.isnan(interval[0]) else f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f} %"

"""Preferences of participants in a two-alternative forced choice, with intervals.

The answers are CSV files that participants saved; nothing in them is trusted.
"""

import csv
from collections import defaultdict
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from secondeye.evaluation.bootstrap import bootstrap_interval
from secondeye.evaluation.significance import corrected_p, least_values
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
    wins: int  # answers for the method, of all participants
    answers: int
    participants: int
    share: float  # mean over participants of their shares of answers for the method
    interval: tuple[float, float]  # bootstrap over participants; of one: exact, over that person's answers
    p: float  # of a share of one half, by sign flips of participants, corrected for all pairs; of one: 1


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
    pairs: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in answers:
        first, second = sorted((answer.left, answer.right))
        pairs[first, second].append(answer)
    return [_preference(*pair, pairs[pair], len(pairs), confidence, seed) for pair in sorted(pairs)]


def _preference(
    method: str, other: str, answers: Sequence[Answer], comparisons: int, confidence: float, seed: int
) -> Preference:
    chosen: dict[str, list[bool]] = defaultdict(list)  # by participant
    for answer in answers:
        chosen[answer.participant].append(answer.chosen == method)
    wins = sum(map(sum, chosen.values()))
    shares = [fmean(given) for given in chosen.values()]
    if len(shares) == 1:
        interval, p = binomial_interval(wins, len(answers), confidence), 1.0
    else:
        by_participant = {str(number): [share] for number, share in enumerate(shares)}
        interval = bootstrap_interval(by_participant, resamples=_RESAMPLES, confidence=confidence, seed=seed)
        p = corrected_p([share - 0.5 for share in shares], comparisons)
    return Preference(method, other, wins, len(answers), len(shares), fmean(shares), interval, p)


def binomial_interval(wins: int, answers: int, confidence: float) -> tuple[float, float]:
    """Return the exact interval of a share (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv  # takes a while to import

    tail = (1 - confidence) / 2
    low = betaincinv(wins, answers - wins + 1, tail) if wins else 0.0
    high = betaincinv(wins + 1, answers - wins, 1 - tail) if wins < answers else 1.0
    return float(low), float(high)


def describe_preferences(answers: Sequence[Answer], *, confidence: float, seed: int) -> str:
    """Return the preferences as Markdown; a preference beyond chance is bold."""
    people = len({answer.participant for answer in answers})
    to_left = sum(answer.chosen == answer.left for answer in answers) / len(answers)
    preferences = find_preferences(answers, confidence=confidence, seed=seed)
    needed = least_values(len(preferences), confidence)
    rows = [_cells(found, needed, confidence) for found in preferences]
    head = ("method", "over", "share", "interval", "corrected p", "participants", "answers", "verdict")
    counts = f"{pluralize(len(answers), 'answer')} of {pluralize(people, 'participant')}"
    note = (
        f"{counts}; the left side was chosen in {100 * to_left:.0f} %. Every participant has the same "
        "weight: a share is the mean of the participants' own shares, and its interval a bootstrap over them "
        f"at confidence {confidence:g}. It is bold if the p-value of a sign-flip test over participants, "
        f"multiplied by the number of pairs ({len(rows)}), is at most {1 - confidence:.4g}, which needs "
        f"{needed} participants."
    )
    if any(found.participants == 1 for found in preferences):
        note += (
            " Where one participant answered, the share and its exact binomial interval over answers speak "
            "for this person only."
        )
    return to_markdown("Preferences", [Section("Forced choice", [Table("", head, rows, note)])])


def _cells(found: Preference, needed: int, confidence: float) -> list[str]:
    share, p, verdict = f"{100 * found.share:.0f} %", f"{found.p:.3g}", "no difference"
    if found.participants == 1:
        p, verdict = "-", "one participant"
    elif found.p <= 1 - confidence:
        share, verdict = Bold(share), f"{found.method if found.share > 0.5 else found.other} preferred"
    elif found.participants < needed:
        verdict = f"fewer than {needed} participants"
    low, high = (f"{100 * end:.0f}" for end in found.interval)
    return [
        *(found.method, found.other, share, f"{low} to {high} %", p),
        *(str(found.participants), f"{found.wins} of {found.answers}", verdict),
    ]

"""Every method on every clip: the one function by which the stage `evaluate` and the gate compare."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from secondeye.evaluation.clip import Folders, load_clip
from secondeye.evaluation.methods import Method, NotNumbers, make_right
from secondeye.evaluation.report import picture_of, write_picture
from secondeye.evaluation.score import score
from secondeye.keep import BadClip, Job, finish_jobs, make_key
from secondeye.process import best_device
from secondeye.refusal import Refusal
from secondeye.rows import Evaluated, Held
from secondeye.tables import write_table

_PICTURE_BYTES = 4e5


class Broken(Refusal):
    """Methods make pixels that are not numbers, on one clip at least; they can not be compared."""

    def __init__(self, methods: Sequence[str]) -> None:
        super().__init__(f"{', '.join(methods)}: makes pixels that are not numbers; train it anew")
        self.methods = methods


def judge(
    out: Path, folders: Folders, held: Sequence[Held], methods: Sequence[Method], frames: int, *, label: str
) -> list[Evaluated]:
    """Score every method on the first `frames` frames of every clip; what `out` holds already is kept.

    Writes `scores.parquet` and a picture of every clip's middle frame as each method made it. Raises Broken
    where a method makes pixels that are not numbers.
    """
    out.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(
            score_id(row.id, method),
            score_key(row, method, frames),
            (folders, row, method, frames),
            _PICTURE_BYTES,
        )
        for method in methods
        for row in held
    ]
    done = finish_jobs(out, jobs, _judge_one, Evaluated, label=label, max_bad_fraction=1.0, unit="score")
    if done.bad:
        raise Broken(sorted({bad.detail for bad in done.bad}))
    write_table(out / "scores.parquet", done.rows, Evaluated)
    order = {job.id: place for place, job in enumerate(jobs)}
    return sorted(done.rows, key=lambda row: order[row.id])


def recall(
    known: Sequence[Evaluated], held: Sequence[Held], methods: Sequence[Method], frames: int
) -> list[Evaluated] | None:
    """What `judge` would find, where all of it was found before, under whatever names; else None."""
    by_key = {row.key: row for row in known}
    wanted = [(row, method, score_key(row, method, frames)) for method in methods for row in held]
    if any(key not in by_key for _, _, key in wanted):
        return None
    return [
        replace(by_key[key], id=score_id(row.id, method), method=method.name) for row, method, key in wanted
    ]


def score_key(held: Held, method: Method, frames: int) -> str:
    """The key of one method's result on one clip: what it is made of, not how it is called."""
    return make_key("evaluate", Evaluated, [], [held.key, *method.made_of, best_device(), str(frames)])


def score_id(clip: str, method: Method) -> str:
    """The name of one method's result on one clip."""
    return hashlib.sha256(f"{clip} {method.name}".encode()).hexdigest()[:16]


def middle_file(out: Path, clip: str, method: Method) -> Path:
    """Where `judge` puts the clip's middle frame as the method made it (PNG)."""
    return out / f"{score_id(clip, method)}.middle.png"


def _judge_one(
    out: Path, name: str, key: str, folders: Folders, held: Held, method: Method, frames: int
) -> tuple[Evaluated, list[Path]]:
    clip = load_clip(folders, held.id, frames)
    try:
        made = make_right(method, clip)
        scores = score(made, clip)
    except NotNumbers as fault:
        raise BadClip("not numbers", method.name) from fault
    middle = len(clip.left) // 2
    path = middle_file(out, held.id, method)
    write_picture(path, picture_of(made.right[middle : middle + 1]))
    return Evaluated(name, key, held.id, held.film, method.name, method.kind, **scores), [path]

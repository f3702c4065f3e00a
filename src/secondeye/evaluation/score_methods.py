"""Every method on every clip: the one function by which the stage `evaluate` and the gate compare."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from secondeye.dataset.schema import EvalClip, Score
from secondeye.dataset.tables import write_table
from secondeye.evaluation.cost import Cost, measure_cost, read_cost, write_cost
from secondeye.evaluation.eval_clips import EvalFrames, Folders, load_clip
from secondeye.evaluation.external import read_external
from secondeye.evaluation.methods import Made, Method, NotNumbers, make_right
from secondeye.evaluation.score import Reference, compute, prepare, score_depth, update
from secondeye.execution.incremental import BadClip, Job, build_missing, make_key
from secondeye.metrics.learned import LearnedMetrics, load_learned_metrics
from secondeye.params import Evaluate
from secondeye.report.contact_sheet import picture_from_frame, write_picture
from secondeye.system.errors import UserError
from secondeye.system.files import hash_weights
from secondeye.system.process import best_device

_PICTURE_BYTES = 4e5


class Broken(UserError):
    """Methods make pixels that are not numbers, on one clip at least; they can not be compared."""

    def __init__(self, methods: Sequence[str]) -> None:
        super().__init__(f"{', '.join(methods)}: makes pixels that are not numbers; train it anew")
        self.methods = methods


def score_methods(
    out: Path,
    folders: Folders,
    held: Sequence[EvalClip],
    methods: Sequence[Method],
    evaluate: Evaluate,
    *,
    label: str,
) -> list[Score]:
    """Score every method on the first `max_frames` frames of every clip; what `out` holds already is kept.

    Writes `scores.parquet`, a picture of every clip's middle frame as each method made it, and what making it
    cost. Raises Broken where a method makes pixels that are not numbers.
    """
    out.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(
            score_id(row.id, method),
            score_key(row, method, evaluate),
            (folders, row, method, evaluate),
            _PICTURE_BYTES,
        )
        for row in held  # what is known of a clip is found once for all methods
        for method in methods
        if method.covers(row.film)
    ]
    done = build_missing(out, jobs, _judge_one, Score, label=label, max_bad_fraction=1.0, unit="score")
    if done.failed:
        raise Broken(sorted({bad.detail for bad in done.failed}))
    write_table(out / "scores.parquet", done.rows, Score)
    places = {method.name: place for place, method in enumerate(methods)}
    return sorted(done.rows, key=lambda row: (places[row.method], row.film, row.clip))


def cached_scores(
    known: Sequence[Score], held: Sequence[EvalClip], methods: Sequence[Method], evaluate: Evaluate
) -> list[Score] | None:
    """What `judge` would find, where all of it was found before, under whatever names; else None."""
    by_key = {row.key: row for row in known}
    wanted = [(row, method, score_key(row, method, evaluate)) for method in methods for row in held]
    if any(key not in by_key for _, _, key in wanted):
        return None
    return [
        replace(by_key[key], id=score_id(row.id, method), method=method.name) for row, method, key in wanted
    ]


def score_key(held: EvalClip, method: Method, evaluate: Evaluate) -> str:
    """The key of one method's result on one clip: what it is made of, not how it is called."""
    made_of = [*method.made_of, method.hashes.get(held.film, ""), best_device()]
    asked = [str(evaluate.max_frames), _hash_learned(evaluate.vgg_weights)]
    return make_key("evaluate", Score, [], [held.key, *made_of, *asked])


def score_id(clip: str, method: Method) -> str:
    """The name of one method's result on one clip."""
    return hashlib.sha256(f"{clip} {method.name}".encode()).hexdigest()[:16]


def middle_file(out: Path, clip: str, method: Method) -> Path:
    """Where `judge` puts the clip's middle frame as the method made it (PNG)."""
    return out / f"{score_id(clip, method)}.middle.png"


def cost_file(out: Path, clip: str, method: Method) -> Path:
    """Where `judge` puts what it cost to make the clip."""
    return out / f"{score_id(clip, method)}.cost.json"


def median_costs(out: Path, held: Sequence[EvalClip], methods: Sequence[Method]) -> dict[str, Cost]:
    """What each method cost a frame, by its name: the median over clips, since the first loads weights."""
    found = {}
    for method in methods:
        costs = [read_cost(cost_file(out, row.id, method)) for row in held if method.covers(row.film)]
        found[method.name] = Cost(*(float(np.median(values)) for values in zip(*costs, strict=True)))
    return found


@lru_cache(maxsize=1)
def _hash_learned(weights: str) -> str:
    """What LPIPS and DISTS see with; "" without them."""
    if not weights:
        return ""
    network = hash_weights(Path(weights)) if Path(weights).is_dir() else weights
    return f"{network} torchmetrics {version('torchmetrics')}"


@lru_cache(maxsize=1)
def _learned(weights: str) -> LearnedMetrics | None:
    return load_learned_metrics(weights, best_device()) if weights else None


@lru_cache(maxsize=1)
def _known(folders: Folders, held: EvalClip, frames: int) -> tuple[EvalFrames, Reference]:
    """A clip, and what is known of it before any method."""
    clip = load_clip(folders, held.id, frames)
    return clip, prepare(clip.left, clip.right, clip.regions)


def _judge_one(
    out: Path, name: str, key: str, folders: Folders, held: EvalClip, method: Method, evaluate: Evaluate
) -> tuple[Score, list[Path]]:
    clip, reference = _known(folders, held, evaluate.max_frames)
    film = method.film_of(held.film)
    try:
        if film is None:
            made, cost = measure_cost(lambda: make_right(method, clip), len(clip.left))
        else:
            made = Made(read_external(film, folders, held.id, len(clip.left)), None)
            cost = Cost(math.nan, math.nan)
        tally = update(reference, made.right, seen=0, learned=_learned(evaluate.vgg_weights))
        scores = compute(tally) | score_depth(made.disparity, clip)
    except NotNumbers as fault:
        raise BadClip("not numbers", method.name) from fault
    middle = len(clip.left) // 2
    picture, spent = middle_file(out, held.id, method), cost_file(out, held.id, method)
    write_picture(picture, picture_from_frame(made.right[middle : middle + 1]))
    write_cost(spent, cost)
    return Score(name, key, held.id, held.film, method.name, method.kind, **scores), [picture, spent]

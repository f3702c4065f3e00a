"""Scoring of methods on held-out clips: the function that the stage `evaluate` and the gate share."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
from torch import Tensor

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import EvalClip, Score
from secondeye.dataset.tables import write_table
from secondeye.evaluation.aligned_reference import (
    Alignment,
    fit_alignment,
    prepare_aligned,
    sample_disparities,
)
from secondeye.evaluation.baselines import shift_left
from secondeye.evaluation.block_scores import block_file, write_blocks
from secondeye.evaluation.cost import Cost, measure_cost, read_cost, write_cost
from secondeye.evaluation.eval_clips import EvalFrames, load_clip
from secondeye.evaluation.external import read_external
from secondeye.evaluation.methods import ALIGNED_KINDS, Method, MethodOutput, make_right
from secondeye.evaluation.non_finite import NonFiniteError
from secondeye.evaluation.regions import match_by_search
from secondeye.evaluation.score import PreparedFrames, compute, inpainted_blocks, prepare, score_depth, update
from secondeye.execution.incremental import BadClip, Job, build_missing, make_key
from secondeye.metrics.learned import LearnedMetrics, load_learned_metrics
from secondeye.params import Evaluate
from secondeye.report.contact_sheet import frame_to_image, write_image
from secondeye.system.errors import UserError
from secondeye.system.files import hash_weights
from secondeye.system.process import best_device

_PICTURE_BYTES = 4e5
_NOT_ALIGNED = Alignment(math.nan, math.nan, 0.0, "not asked for")


class NonFiniteMethods(UserError):
    """Methods that produced NaN or inf on at least one clip; they cannot be compared."""

    def __init__(self, methods: Sequence[str]) -> None:
        super().__init__(f"{', '.join(methods)}: produces pixels that are NaN or inf; train it again")
        self.methods = methods


def score_methods(
    out: Path,
    dataset: Dataset,
    clips: Sequence[EvalClip],
    methods: Sequence[Method],
    evaluate: Evaluate,
    *,
    label: str,
) -> list[Score]:
    """Score every method on the first `max_frames` frames of every clip; finished scores in `out` are kept.

    Writes `scores.parquet` and, for each clip and method, the middle frame, the cost and the scores of
    blocks. Raises NonFiniteMethods, and UserError if the dataset was rebuilt without one of the clips.
    """
    out.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(
            score_id(clip.id, method),
            score_key(clip, method, evaluate),
            (dataset, dataset.clip(clip.id), clip, method, evaluate),
            _PICTURE_BYTES,
        )
        for clip in clips  # the outer loop, so that a clip is prepared once for all methods
        for method in methods
        if method.covers(clip.film)
    ]
    done = build_missing(out, jobs, _score_clip, Score, label=label, max_bad_fraction=1.0, unit="score")
    if done.failed:
        raise NonFiniteMethods(sorted({failure.detail for failure in done.failed}))
    write_table(out / "scores.parquet", done.rows, Score)
    order = {method.name: index for index, method in enumerate(methods)}
    return sorted(done.rows, key=lambda row: (order[row.method], row.film, row.clip))


def cached_scores(
    known: Sequence[Score], clips: Sequence[EvalClip], methods: Sequence[Method], evaluate: Evaluate
) -> list[Score] | None:
    """Return the scores of all methods if all are known, under whatever name; else None."""
    by_key = {row.key: row for row in known}
    wanted = [(clip, method, score_key(clip, method, evaluate)) for method in methods for clip in clips]
    if any(key not in by_key for _, _, key in wanted):
        return None
    return [
        replace(by_key[key], id=score_id(clip.id, method), method=method.name) for clip, method, key in wanted
    ]


def score_key(clip: EvalClip, method: Method, evaluate: Evaluate) -> str:
    """Return the key of a method's score on a clip; the method's name is no part of it."""
    content = [*method.content, method.film_hashes.get(clip.film, ""), best_device()]
    settings = [str(evaluate.max_frames), _hash_learned(evaluate.vgg_weights)]
    return make_key("evaluate", Score, [], [clip.key, *content, *settings])


def score_id(clip: str, method: Method) -> str:
    """Return the id of a method's score on a clip."""
    return hashlib.sha256(f"{clip} {method.name}".encode()).hexdigest()[:16]


def middle_frame_file(out: Path, clip: str, method: Method) -> Path:
    """Return the PNG of the clip's middle frame as the method made it."""
    return out / f"{score_id(clip, method)}.middle.png"


def cost_file(out: Path, clip: str, method: Method) -> Path:
    """Return the file with the method's cost on the clip."""
    return out / f"{score_id(clip, method)}.cost.json"


def median_costs(out: Path, clips: Sequence[EvalClip], methods: Sequence[Method]) -> dict[str, Cost]:
    """Return method -> cost of a frame: the median over clips, because the first clip loads the weights."""
    medians = {}
    for method in methods:
        costs = [read_cost(cost_file(out, clip.id, method)) for clip in clips if method.covers(clip.film)]
        medians[method.name] = Cost(*(float(np.median(values)) for values in zip(*costs, strict=True)))
    return medians


@lru_cache(maxsize=1)
def _hash_learned(weights: str) -> str:
    """Return a hash of the networks of LPIPS and DISTS; "" without them."""
    if not weights:
        return ""
    network = hash_weights(Path(weights)) if Path(weights).is_dir() else weights
    return f"{network} torchmetrics {version('torchmetrics')}"


@lru_cache(maxsize=1)
def _load_learned(weights: str) -> LearnedMetrics | None:
    return load_learned_metrics(weights, best_device()) if weights else None


@lru_cache(maxsize=1)
def _load_prepared(
    dataset: Dataset, clip: DatasetClip, key: str, max_frames: int
) -> tuple[EvalFrames, PreparedFrames]:
    """Load a clip and what scores need of it; `key` (EvalClip.key) keeps the cache of one clip fresh."""
    frames = load_clip(dataset, clip, max_frames)
    return frames, prepare(frames.left, frames.right, frames.regions)


@lru_cache(maxsize=1)
def _load_aligned(
    dataset: Dataset, clip: DatasetClip, key: str, max_frames: int, film: Path, digest: str
) -> tuple[Tensor, Alignment, PreparedFrames]:
    """Load a clip of a film converted elsewhere, and the scores at its strength and convergence.

    It is compared with the true right view itself if it cannot be aligned.
    """
    frames, prepared = _load_prepared(dataset, clip, key, max_frames)
    right = read_external(film, clip)[: len(frames.left)]
    alignment = fit_alignment(sample_disparities(frames.left, frames.right, right), right.shape[-1])
    if not alignment.obstacle:
        match = match_by_search(frames.left, frames.right)
        prepared = prepare_aligned(frames.left, frames.right, frames.regions, match, alignment)
    return right, alignment, prepared


def _score_clip(
    out: Path,
    name: str,
    key: str,
    dataset: Dataset,
    clip: DatasetClip,
    eval_clip: EvalClip,
    method: Method,
    evaluate: Evaluate,
) -> tuple[Score, list[Path]]:
    frames, prepared = _load_prepared(dataset, clip, eval_clip.key, evaluate.max_frames)
    film = method.external_film(eval_clip.film)
    cost, alignment = Cost(math.nan, math.nan), _NOT_ALIGNED
    try:
        if film is None:
            output, cost = measure_cost(lambda: make_right(method, frames), len(frames.left))
        elif method.kind in ALIGNED_KINDS:
            digest = method.film_hashes[eval_clip.film]
            right, alignment, prepared = _load_aligned(
                dataset, clip, eval_clip.key, evaluate.max_frames, film, digest
            )
            flat = shift_left(frames.left, round(alignment.median_px))
            output = MethodOutput(flat if method.kind == "flat" else right, None)
        else:
            output = MethodOutput(read_external(film, clip)[: len(frames.left)], None)
        state = update(prepared, output.right, overlap=0, learned=_load_learned(evaluate.vgg_weights))
        scores = compute(state) | score_depth(output.disparity, frames)
    except NonFiniteError as error:
        raise BadClip("non-finite pixels", method.name) from error
    middle = len(frames.left) // 2
    image, cost_path = middle_frame_file(out, clip.id, method), cost_file(out, clip.id, method)
    write_image(image, frame_to_image(output.right[middle : middle + 1]))
    write_cost(cost_path, cost)
    scores["strength_ratio"] = round(alignment.scale, 4)
    scores["convergence_shift_percent"] = round(100 * alignment.shift_px / frames.left.shape[-1], 4)
    blocks = block_file(out, name)
    write_blocks(blocks, inpainted_blocks(prepared, output.right))
    row = Score(name, key, clip.id, eval_clip.film, method.name, method.kind, **scores)
    return row, [image, cost_path, blocks]

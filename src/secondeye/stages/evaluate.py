"""Every rival on every held-out clip: tables, pictures, and a run folder."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from secondeye.clips import clip_file, write_plane
from secondeye.evaluation.clip import Folders, load_middle, manifest_hash
from secondeye.evaluation.judge import judge, middle_file
from secondeye.evaluation.methods import FLOORS, Method
from secondeye.evaluation.regions import regions_from_match, regions_from_truth
from secondeye.evaluation.report import (
    COLUMNS,
    by_method,
    describe,
    mean_of_films,
    picture_of,
    read_picture,
    write_sheet,
)
from secondeye.evaluation.score import shares
from secondeye.files import hash_file, write_whole
from secondeye.keep import Job, finish_jobs, make_key
from secondeye.matching import make_matcher
from secondeye.params import Evaluate, Match
from secondeye.process import alone_in
from secondeye.refusal import Refusal
from secondeye.rows import Clip, Evaluated, Film, Held, Kept, Matched, Shifted
from secondeye.runs import copy_record, make_run_key, open_run
from secondeye.tables import read_table, write_table
from secondeye.truth import apply_shift, read_truth, truth_file
from secondeye.views import load

_BYTES_PER_PIXEL = 0.3  # a bound: a map of four values in FFV1
_SHEET_CLIPS = 4
_REGION_COLOURS = np.array([[90, 90, 90], [20, 20, 20], [255, 0, 170], [0, 170, 255]], np.uint8)


def run(
    raw: Path,
    split: Path,
    shift: Path,
    match: Path,
    filter: Path,
    depth: Path,
    inpaint: Path,
    out: Path,
    reports: Path,
    runs: Path,
    *,
    evaluate: Evaluate,
) -> None:
    """Write `regions/manifest.parquet`, `scores/scores.parquet`, reports/evaluation.{md,json,png}.

    Raises Refusal when no clip is held out, and when a method makes pixels that are not numbers.
    """
    films = {film.id: film.name for film in read_table(split / "films.parquet", Film)}
    folders = Folders(split, shift, match, out / "regions")
    methods = [*FLOORS, *rivals(depth, inpaint)]
    with alone_in(out):
        held = freeze_manifest(raw, folders, filter, evaluate.regions)
        rows = judge(out / "scores", folders, held, methods, evaluate.max_frames, label="evaluate")
        reports.mkdir(parents=True, exist_ok=True)
        report = describe(rows, films, manifest_hash(held), evaluate.max_frames)
        write_whole(reports / "evaluation.md", report)
        write_whole(reports / "evaluation.json", json.dumps(summary(rows), indent=1, sort_keys=True) + "\n")
        _write_sheet(reports / "evaluation.png", out, folders, held, methods, evaluate.max_frames)
        _keep_record(runs, out, reports, held, rows, methods, evaluate)
    print(f"evaluate: {len(held)} clips, {len(methods)} methods; the report is {reports / 'evaluation.md'}")


def rivals(depth: Path, inpaint: Path) -> list[Method]:
    """The inpainters, and whole models, made of the weights in models/."""
    light, diffusion = inpaint / "light", inpaint / "diffusion"
    return [
        Method("fill", "inpainter", inpainter="fill"),
        Method("light", "inpainter", inpainter="light", inpaint_weights=light),
        Method("diffusion", "inpainter", inpainter="diffusion", inpaint_weights=diffusion),
        Method("motion + fill", "model", "motion", None, "fill"),
        Method("student + fill", "model", "student", depth, "fill"),
        Method("student + light", "model", "student", depth, "light", light),
    ]


def freeze_manifest(raw: Path, folders: Folders, filter: Path, matching: Match) -> list[Held]:
    """Find the regions of every held-out clip, by the truth where there is one; once for all models."""
    films = {film.id: film for film in read_table(folders.split / "films.parquet", Film)}
    shifted = {row.id: row for row in read_table(folders.shift / "shift.parquet", Shifted)}
    matched = {row.id: row for row in read_table(folders.match / "match.parquet", Matched)}
    clips = {row.id: row for row in read_table(folders.split / "clips.parquet", Clip)}
    kept = [row for row in read_table(filter / "kept.parquet", Kept) if row.split == "test"]
    if not kept:
        raise Refusal(
            f"{filter / 'kept.parquet'}: no clip is held out; give a film the split test in sources.csv"
        )
    jobs = []
    for row in kept:
        clip, truth = clips[row.id], truth_file(raw / films[row.film].name)
        known = hash_file(truth) if truth.exists() else ""
        key = make_key("evaluate", Held, [matching], [matched[row.id].key, known])
        arguments = (clip, folders.split, shifted[row.id], truth if known else None, matching)
        jobs.append(Job(row.id, key, arguments, clip.pixels * _BYTES_PER_PIXEL))
    folders.regions.mkdir(exist_ok=True)
    done = finish_jobs(folders.regions, jobs, _find_regions, Held, label="regions", max_bad_fraction=0.0)
    write_table(folders.regions / "manifest.parquet", done.rows, Held)
    return sorted(done.rows, key=lambda row: row.id)


def _find_regions(
    out: Path,
    name: str,
    key: str,
    clip: Clip,
    split: Path,
    shifted: Shifted,
    truth: Path | None,
    matching: Match,
) -> tuple[Held, list[Path]]:
    regions = _regions_from_truth(truth, clip, shifted) if truth else None
    reference = "match" if regions is None else "truth"
    if regions is None:
        left, right = load(split, shifted)
        search_px = round(left.shape[-1] * matching.max_disparity_percent / 100)
        matcher = make_matcher(matching.matcher, search_px)
        regions = regions_from_match(matcher, left, right, tolerance_px=matching.tolerance_px)
    path = clip_file(out, name, "regions")
    write_plane(path, regions)
    return Held(name, key, clip.film, reference, **shares(regions)), [path]


def _regions_from_truth(path: Path, clip: Clip, shifted: Shifted) -> Tensor | None:
    """None where the clip was resized: truth is for the film as it is."""
    truth = read_truth(path, clip.start, clip.stop)
    if truth.right_disparity.shape != (clip.stop - clip.start, 1, clip.height, clip.width):
        return None
    return regions_from_truth(*apply_shift(truth, shifted.shift_px))


def summary(rows: Sequence[Evaluated]) -> dict[str, dict[str, float]]:
    """Each method's means over films; what `dvc metrics` shows."""
    columns = [column for _, column, _ in COLUMNS]
    groups = by_method(rows)
    means = {method: {c: mean_of_films(found, c) for c in columns} for method, found in groups.items()}
    return {
        method: {c: round(value, 4) for c, value in scores.items() if not math.isnan(value)}
        for method, scores in means.items()
    }


def _write_sheet(
    path: Path,
    out: Path,
    folders: Folders,
    held: Sequence[Held],
    methods: Sequence[Method],
    frames: int,
) -> None:
    """One clip of each film, the one with most to paint: the truth, its regions, what methods made of it."""
    most: dict[str, Held] = {}
    for row in sorted(held, key=lambda row: row.disoccluded_share):
        most[row.film] = row
    shown = [m for m in methods if m.kind != "floor"]
    columns: dict[str, Callable[[str], np.ndarray]] = {
        "the film's right eye": lambda clip: picture_of(load_middle(folders, clip, frames).right),
        "regions": lambda clip: _REGION_COLOURS[load_middle(folders, clip, frames).regions[0, 0].numpy()],
        **{m.name: partial(_middle_picture, out / "scores", m) for m in shown},
    }
    write_sheet(path, columns, [row.id for _, row in sorted(most.items())][:_SHEET_CLIPS])


def _middle_picture(scores: Path, method: Method, clip: str) -> np.ndarray:
    return read_picture(middle_file(scores, clip, method))


def _keep_record(
    runs: Path,
    out: Path,
    reports: Path,
    held: Sequence[Held],
    rows: Sequence[Evaluated],
    methods: Sequence[Method],
    evaluate: Evaluate,
) -> None:
    """The run folder of this evaluation, and a copy of its record beside the scores."""
    manifest = manifest_hash(held)
    inputs = {"manifest": manifest, **{m.name: " ".join(m.made_of) for m in methods}}
    key = make_run_key("secondeye.stages.evaluate", [evaluate], inputs)
    run = open_run(runs, key, "evaluate", evaluate, {"manifest": manifest})
    run.rewind(0)
    for method, scores in summary(rows).items():
        plain = method.replace(" + ", "_").replace(" ", "_")
        run.log(0, {f"{plain}/{name}": value for name, value in scores.items()})
    write_table(run.table("scores.parquet"), rows, Evaluated)
    shutil.copyfile(reports / "evaluation.md", run.table("evaluation.md"))
    shutil.copyfile(reports / "evaluation.png", run.picture("evaluation.png"))
    run.finish({})
    shutil.rmtree(out / "run", ignore_errors=True)
    copy_record(run, out / "run")

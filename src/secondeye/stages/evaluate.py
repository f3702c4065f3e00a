"""Every rival on every held-out clip: tables, pictures, and a run folder."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secondeye.dataset.clip_files import clip_file, write_plane
from secondeye.dataset.corrections import load_views
from secondeye.dataset.ground_truth import apply_shift, ground_truth_file, read_ground_truth
from secondeye.dataset.schema import (
    AcceptedClip,
    AggregateScore,
    Clip,
    ClipDisparity,
    Correction,
    EvalClip,
    Film,
    Score,
)
from secondeye.dataset.tables import read_table, write_table
from secondeye.evaluation.eval_clips import Folders, load_middle, manifest_hash
from secondeye.evaluation.external import films_of, list_external
from secondeye.evaluation.figures import clip_rows, most_to_paint
from secondeye.evaluation.methods import BASELINES, Method
from secondeye.evaluation.regions import regions_from_match, regions_from_truth
from secondeye.evaluation.report import plot_points, sections, summary, totals
from secondeye.evaluation.score import shares
from secondeye.evaluation.score_methods import median_costs, middle_file, score_methods
from secondeye.execution.incremental import Job, build_missing, make_key
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.matching import make_matcher
from secondeye.matching.flow_matcher import match_flow
from secondeye.params import Evaluate, Regions
from secondeye.report.contact_sheet import picture_from_frame, read_picture, write_contact_sheet
from secondeye.report.document import Section, to_markdown
from secondeye.report.html import write_page
from secondeye.run_folder import copy_record, make_run_key, open_run
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file, write_atomic
from secondeye.system.process import lock_dir

_SIBLINGS = {"evaluation.md": "as Markdown", "dataset.html": "the dataset", "gate.md": "the gate"}
_BYTES_PER_PIXEL = 0.3  # a bound: a map of four values in FFV1


def run(
    raw: Path,
    split: Path,
    shift: Path,
    match: Path,
    filter: Path,
    depth: Path,
    inpaint: Path,
    external: Path,
    out: Path,
    reports: Path,
    runs: Path,
    *,
    evaluate: Evaluate,
) -> None:
    """Write regions/manifest.parquet, scores/{scores,totals}.parquet, reports/evaluation* and index.html.

    Raises Refusal when no clip is held out, when a method makes pixels that are not numbers, and for films in
    `external` that are none of the dataset's.
    """
    table = read_table(split / "films.parquet", Film)
    films = {film.id: film.name for film in table}
    folders = Folders(split, shift, match, out / "regions")
    methods = [*BASELINES, *baselines(depth, inpaint), *made_elsewhere(external, table)]
    with lock_dir(out):
        held = freeze_manifest(raw, folders, filter, evaluate.regions)
        rows = score_methods(out / "scores", folders, held, methods, evaluate, label="evaluate")
        reports.mkdir(parents=True, exist_ok=True)
        sheet = reports / "evaluation.png"
        _write_sheet(sheet, out / "scores", folders, held, films, methods, evaluate.max_frames)
        costs = median_costs(out / "scores", held, methods)
        found = sections(
            rows,
            held,
            films,
            manifest=manifest_hash(held),
            evaluate=evaluate,
            costs=costs,
            sheet=sheet,
        )
        over_films = totals(rows, evaluate)
        write_table(out / "scores" / "totals.parquet", over_films, AggregateScore)
        _write_reports(reports, found, over_films, plot_points(rows, films, evaluate))
        _keep_record(runs, out, reports, held, rows, over_films, methods, evaluate)
    print(f"evaluate: {len(held)} clips, {len(methods)} methods; the report is {reports / 'index.html'}")


def baselines(depth: Path, inpaint: Path) -> list[Method]:
    """The inpainters, their ceiling, and depth with the same inpainter, made of the weights in models/."""
    light, diffusion = inpaint / "light", inpaint / "diffusion"
    return [
        Method("fill", "inpainter", inpainter="fill"),
        Method("light", "inpainter", inpainter="light", inpaint_weights=light),
        Method("diffusion", "inpainter", inpainter="diffusion", inpaint_weights=diffusion),
        Method("VAE round trip", "ceiling", inpainter="diffusion", inpaint_weights=diffusion),
        Method("motion + fill", "model", "motion", None, "fill"),
        Method("student + fill", "model", "student", depth, "fill"),
    ]


def made_elsewhere(external: Path, films: Sequence[Film]) -> list[Method]:
    """What others made of the dataset's films: a method for each folder in `external`.

    The name has the kind in front, so that no folder passes for one of our methods.
    """
    return [
        Method(f"external: {maker.name}", "external", films=films_of(maker, films))
        for maker in list_external(external)
    ]


def freeze_manifest(raw: Path, folders: Folders, filter: Path, matching: Regions) -> list[EvalClip]:
    """Find the regions of every held-out clip, by the truth where there is one; once for all models."""
    films = {film.id: film for film in read_table(folders.split / "films.parquet", Film)}
    shifted = {row.id: row for row in read_table(folders.shift / "shift.parquet", Correction)}
    matched = {row.id: row for row in read_table(folders.match / "match.parquet", ClipDisparity)}
    clips = {row.id: row for row in read_table(folders.split / "clips.parquet", Clip)}
    kept = [row for row in read_table(filter / "accepted.parquet", AcceptedClip) if row.split == "test"]
    if not kept:
        raise UserError(
            f"{filter / 'accepted.parquet'}: no clip is held out; give a film the split test in sources.csv"
        )
    jobs = []
    for row in kept:
        clip, film = clips[row.id], films[row.film]
        truth = ground_truth_file(raw / film.name)
        known = hash_file(truth) if truth.exists() and _is_as_filmed(clip, film, shifted[row.id]) else ""
        key = make_key("evaluate", EvalClip, [matching], [matched[row.id].key, known])
        arguments = (clip, folders.split, shifted[row.id], truth if known else None, matching)
        jobs.append(Job(row.id, key, arguments, clip.pixels * _BYTES_PER_PIXEL))
    folders.regions.mkdir(exist_ok=True)
    done = build_missing(
        folders.regions, jobs, _find_regions, EvalClip, label="regions", max_bad_fraction=0.0
    )
    write_table(folders.regions / "manifest.parquet", done.rows, EvalClip)
    return sorted(done.rows, key=lambda row: row.id)


def _find_regions(
    out: Path,
    name: str,
    key: str,
    clip: Clip,
    split: Path,
    shifted: Correction,
    truth: Path | None,
    matching: Regions,
) -> tuple[EvalClip, list[Path]]:
    regions = _regions_from_truth(truth, clip, shifted.shift_px) if truth else None
    reference = "match" if regions is None else "truth"
    if regions is None:
        left, right = load_views(split, shifted)
        search_px = round(left.shape[-1] * matching.max_disparity_percent / 100)
        matcher = make_matcher(matching.matcher, search_px)
        regions = regions_from_match(matcher, left, right, tolerance_px=matching.tolerance_px)
    path = clip_file(out, name, "regions")
    write_plane(path, regions)
    digest = hashlib.sha256(regions.numpy().tobytes()).hexdigest()[:16]
    return EvalClip(name, key, clip.film, reference, digest, **shares(regions)), [path]


def _is_as_filmed(clip: Clip, film: Film, shifted: Correction) -> bool:
    """Whether the clip's pictures are the film's, but for the shift: truth is for the film as it is."""
    cropped = film.crop_top or film.crop_bottom or film.crop_left or film.crop_right
    same_size = (film.height, film.width) == (clip.height, clip.width)
    return same_size and not (cropped or shifted.swapped or shifted.vertical_px)


def _regions_from_truth(path: Path, clip: Clip, shift_px: int) -> Tensor | None:
    """None where the truth's arrays have another size than the clip."""
    truth = read_ground_truth(path, clip.start, clip.stop)
    if truth.right_disparity.shape != (clip.stop - clip.start, 1, clip.height, clip.width):
        return None
    return regions_from_truth(*apply_shift(truth, shift_px))


def _write_sheet(
    path: Path,
    scores: Path,
    folders: Folders,
    held: Sequence[EvalClip],
    films: Mapping[str, str],
    methods: Sequence[Method],
    frames: int,
) -> None:
    """The clip of each film with most to paint: the truth, what methods made of it, and how wrong."""
    rows = []
    for row in most_to_paint(held):
        middle = load_middle(folders, row.id, frames)
        made = {
            method.name: _with_disparity(middle.left, read_picture(middle_file(scores, row.id, method)))
            for method in methods
            if method.covers(row.film)
        }
        left, truth = picture_from_frame(middle.left), picture_from_frame(middle.right)
        rows += clip_rows(
            films[row.film],
            left,
            truth,
            middle.regions[0, 0].numpy(),
            _with_disparity(middle.left, truth)[1],
            made,
        )
    write_contact_sheet(path, rows)


def _with_disparity(left: Tensor, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A right eye, and what the matcher of the evaluation finds between it and the left one."""
    frames = frames_from_uint8(torch.from_numpy(right.copy())[None])
    return right, match_flow(left, frames).disparity[0, 0].numpy()


def _write_reports(
    reports: Path,
    found: Sequence[Section],
    over_films: Sequence[AggregateScore],
    points: Sequence[Mapping[str, object]],
) -> None:
    """For people, for `dvc metrics` and `dvc plots`, and a page for a browser."""
    write_atomic(reports / "evaluation.md", to_markdown("Evaluation", found))
    write_atomic(reports / "evaluation.json", _json(summary(over_films)))
    write_atomic(reports / "evaluation_plots.json", _json(points))
    write_page(reports / "index.html", "secondeye: evaluation", found, _SIBLINGS)


def _json(content: object) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _keep_record(
    runs: Path,
    out: Path,
    reports: Path,
    held: Sequence[EvalClip],
    rows: Sequence[Score],
    over_films: Sequence[AggregateScore],
    methods: Sequence[Method],
    evaluate: Evaluate,
) -> None:
    """The run folder of this evaluation, and a copy of its record beside the scores."""
    manifest = manifest_hash(held)
    made_of = {m.name: " ".join((*m.made_of, *m.hashes.values())) for m in methods}
    inputs = {"manifest": manifest, **made_of}
    key = make_run_key("secondeye.stages.evaluate", [evaluate], inputs)
    run = open_run(runs, key, "evaluate", evaluate, {"manifest": manifest})
    run.rewind(0)
    plain = {method.name: re.sub(r"[^\w.-]+", "_", method.name) for method in methods}  # as MLflow allows
    run.log(0, {f"{plain[total.method]}/{total.score}": total.mean for total in over_films})
    write_table(run.table("scores.parquet"), rows, Score)
    write_table(run.table("totals.parquet"), over_films, AggregateScore)
    for name in ("evaluation.md", "evaluation.json", "evaluation_plots.json", "index.html"):
        shutil.copyfile(reports / name, run.table(name))
    shutil.copyfile(reports / "evaluation.png", run.picture("evaluation.png"))
    run.finish({})
    shutil.rmtree(out / "run", ignore_errors=True)
    copy_record(run, out / "run")

"""Stage `evaluate`: score every method on every held-out clip; write tables, reports and a run folder."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secondeye.conversion.bundle_parts import SHIPPED
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import AggregateScore, EvalClip, Film, Score
from secondeye.dataset.tables import write_table
from secondeye.deep3d.model import is_trained
from secondeye.evaluation.aggregate import aggregate_scores
from secondeye.evaluation.block_scores import blocks_in
from secondeye.evaluation.eval_clips import load_middle_frame
from secondeye.evaluation.external import list_external, match_films
from secondeye.evaluation.figures import clip_rows, select_clips
from secondeye.evaluation.manifest import freeze_manifest, manifest_hash
from secondeye.evaluation.methods import ALIGNED_KINDS, BASELINES, DEEP3D, Method
from secondeye.evaluation.report import build_sections, plot_points, write_reports
from secondeye.evaluation.score_methods import median_costs, middle_frame_file, score_methods
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.inpaint import COMMAND, require_known_inpainter
from secondeye.matching.flow_matcher import match_flow
from secondeye.params import Evaluate
from secondeye.report.contact_sheet import frame_to_image, read_image, write_contact_sheet
from secondeye.run_folder import Run, copy_record, make_run_key, open_run
from secondeye.system.process import lock_dir
from secondeye.system.text import pluralize


def run(data: Path, models: Path, reports: Path, runs: Path, *, evaluate: Evaluate) -> None:
    """Write the manifest with region maps, both score tables, reports/evaluation* and reports/index.html.

    Raises UserError if no clip is held out, if a method produces NaN or inf, for films in data/external that
    do not match one of the dataset, and for commands that cannot be run.
    """
    dataset = Dataset(data)
    names = {film.id: film.name for film in dataset.rows(Film)}
    methods = evaluated_methods(dataset, models, evaluate)
    out = dataset.folder("evaluate")
    with lock_dir(out):
        clips = freeze_manifest(dataset, evaluate.regions)
        scores = dataset.path(Score).parent
        rows = score_methods(scores, dataset, clips, methods, evaluate, label="evaluate")
        reports.mkdir(parents=True, exist_ok=True)
        sheet = reports / "evaluation.png"
        shown = [method for method in methods if method.kind not in ALIGNED_KINDS]
        _write_sheet(sheet, scores, dataset, clips, names, shown, evaluate.max_frames)
        sections = build_sections(
            rows,
            clips,
            names,
            blocks_of=blocks_in(scores, rows),
            manifest=manifest_hash(clips),
            evaluate=evaluate,
            costs=median_costs(scores, clips, shown),
            sheet=sheet,
        )
        aggregates = aggregate_scores(rows, evaluate)
        write_table(dataset.path(AggregateScore), aggregates, AggregateScore)
        write_reports(reports, sections, aggregates, plot_points(rows, names, evaluate))
        _write_run(runs, out, reports, clips, rows, aggregates, methods, evaluate)
    scored = f"{pluralize(len(clips), 'clip')}, {pluralize(len(methods), 'method')}"
    print(f"evaluate: {scored}; the report is {reports / 'index.html'}")


def evaluated_methods(
    dataset: Dataset | None,  # None: without films that were converted elsewhere
    models: Path,
    evaluate: Evaluate,
) -> list[Method]:
    """Return everything that is scored: baselines, our methods and models, programs, and external films.

    Raises UserError for commands that cannot be run and films that do not match one of the dataset.
    """
    external = external_methods(dataset.folder("external"), dataset.rows(Film)) if dataset else []
    return [*BASELINES, *own_methods(models), *command_methods(evaluate), *external]


def own_methods(models: Path) -> list[Method]:
    """Return our inpainters, shipped and trained, the ceiling of the diffusion model, and whole models.

    The rival Deep3D is among them if it is trained. Our whole models have the shipped inpainter: `motion`
    with it is the first champion of a registry.
    """
    light, diffusion = models / "inpaint" / "light", models / "inpaint" / "diffusion"
    shipped = SHIPPED / "inpaint"
    deep3d = models / "deep3d"
    rivals = [Method("Deep3D", "model", DEEP3D, deep3d)] if is_trained(deep3d) else []
    return [
        Method("fill", "inpainter", inpainter="fill"),
        Method("propagation", "inpainter", inpainter="propagation"),
        Method("shipped light", "inpainter", inpainter="light", inpaint_weights=shipped),
        Method("light", "inpainter", inpainter="light", inpaint_weights=light),
        Method("diffusion", "inpainter", inpainter="diffusion", inpaint_weights=diffusion),
        Method("VAE round trip", "ceiling", inpainter="diffusion", inpaint_weights=diffusion),
        Method("motion + shipped light", "model", "motion", None, "light", shipped),
        Method("student + shipped light", "model", "student", models / "depth", "light", shipped),
        *rivals,
    ]


def command_methods(evaluate: Evaluate) -> list[Method]:
    """Return a method for each program that inpaints. Raises UserError if one cannot be run."""
    commands = {name: f"{COMMAND}:{command}" for name, command in evaluate.inpaint_commands.items()}
    for command in commands.values():
        require_known_inpainter(command)
    return [Method(f"command: {name}", "inpainter", inpainter=command) for name, command in commands.items()]


def external_methods(external: Path, films: Sequence[Film]) -> list[Method]:
    """Return three methods for each folder of films converted elsewhere: unchanged, aligned, and flat.

    The prefix keeps a folder from taking the name of one of our methods.
    """
    methods = []
    for folder in list_external(external):
        name, matched = f"external: {folder.name}", match_films(folder, films)
        methods += [
            Method(name, "external", films=matched),
            Method(f"{name}, aligned", "aligned", films=matched),
            Method(f"{name}, no depth", "flat", films=matched),
        ]
    return methods


def _write_sheet(
    path: Path,
    scores: Path,
    dataset: Dataset,
    clips: Sequence[EvalClip],
    films: Mapping[str, str],
    methods: Sequence[Method],
    max_frames: int,
) -> None:
    """Write the contact sheet: for the chosen clips the truth, every method's output, and its error."""
    rows = []
    for clip in select_clips(clips):
        middle = load_middle_frame(dataset, dataset.clip(clip.id), max_frames)
        outputs = {
            method.name: _with_disparity(middle.left, read_image(middle_frame_file(scores, clip.id, method)))
            for method in methods
            if method.covers(clip.film)
        }
        left, truth = frame_to_image(middle.left), frame_to_image(middle.right)
        regions = middle.regions[0, 0].numpy()
        true_disparity = _with_disparity(middle.left, truth)[1]
        rows += clip_rows(films[clip.film], left, truth, regions, true_disparity, outputs)
    write_contact_sheet(path, rows)


def _with_disparity(left: Tensor, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a right view and the disparity that optical flow finds between the left view and it."""
    frames = frames_from_uint8(torch.from_numpy(right.copy())[None])
    return right, match_flow(left, frames).disparity[0, 0].numpy()


def _write_run(
    runs: Path,
    out: Path,
    reports: Path,
    clips: Sequence[EvalClip],
    rows: Sequence[Score],
    aggregates: Sequence[AggregateScore],
    methods: Sequence[Method],
    evaluate: Evaluate,
) -> None:
    """Write the run folder of this evaluation, and a copy of its record beside the scores."""
    manifest = manifest_hash(clips)
    contents = {m.name: " ".join((*m.content, *m.film_hashes.values())) for m in methods}
    inputs = {"manifest": manifest, **contents}
    key = make_run_key("secondeye.stages.evaluate", [evaluate], inputs)
    run = open_run(runs, key, "evaluate", evaluate, {"manifest": manifest, **judged_weights(methods)})
    run.rewind(0)
    safe = {method.name: re.sub(r"[^\w.-]+", "_", method.name) for method in methods}  # allowed by MLflow
    run.log(0, {f"{safe[aggregate.method]}/{aggregate.score}": aggregate.mean for aggregate in aggregates})
    write_table(run.table("scores.parquet"), rows, Score)
    write_table(run.table("totals.parquet"), aggregates, AggregateScore)
    for name in ("evaluation.md", "evaluation.json", "evaluation_plots.json", "index.html"):
        shutil.copyfile(reports / name, run.table(name))
    shutil.copyfile(reports / "evaluation.png", run.picture("evaluation.png"))
    run.finish({})
    shutil.rmtree(out / "run", ignore_errors=True)
    copy_record(run, out / "run")


def judged_weights(methods: Sequence[Method]) -> dict[str, str]:
    """Return a run's tags for all weights that are scored: their hashes, and the runs that trained them."""
    tags = {}
    for method in methods:
        weights = zip((method.depth_weights, method.inpaint_weights), method.content[-2:], strict=True)
        for folder, digest in weights:
            if folder is None:
                continue
            name = "shipped" if folder.parent == SHIPPED else folder.name
            tags[f"weights.{name}"] = digest
            if (folder / "run" / "run.json").is_file():
                tags[f"run.{name}"] = Run(folder / "run").key
    return tags

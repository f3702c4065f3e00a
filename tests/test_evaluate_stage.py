"""The stage `evaluate` on small films whose regions and scores are known."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import a_clip, a_film, a_shift
from small_dataset import write_rows
from test_stages import HEIGHT, WIDTH, cards, params, run_all, write_cards

from secondeye.dataset.clip_files import write_frames
from secondeye.dataset.ground_truth import ground_truth_file, write_ground_truth
from secondeye.dataset.reader import Dataset
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
from secondeye.evaluation.block_scores import block_file, read_blocks
from secondeye.evaluation.manifest import freeze_manifest
from secondeye.evaluation.methods import Method
from secondeye.params import Params
from secondeye.stages import evaluate
from secondeye.system.errors import UserError

__all__ = ["params"]  # a fixture


def test_every_method_is_scored_on_fixed_regions(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, seed in enumerate((1, 2, 3)):
        film, shot = tmp_path / "raw" / f"cards{number}_sbs.mp4", cards(seed)
        film.parent.mkdir(exist_ok=True)
        write_cards(film, shot)
        if number:
            write_ground_truth(ground_truth_file(film), shot.right_disparity, shot.right_occlusion)
    lines = [f"cards{number}_sbs.mp4,sbs,test,CC0" for number in range(3)]
    (tmp_path / "raw" / "sources.csv").write_text("\n".join(["film,packing,split,licence", *lines]) + "\n")
    run_all(tmp_path, params)
    fill = Method("fill", "inpainter", inpainter="fill")
    monkeypatch.setattr(evaluate, "own_methods", lambda models: [fill])
    settings = replace(params.evaluate, inpaint_commands={"masks": """sh -c 'cp "$1"/* "$2"'"""})
    external = tmp_path / "external" / "elsewhere"
    external.mkdir(parents=True)
    shutil.copyfile(tmp_path / "raw" / "cards2_sbs.mp4", external / "cards2_lr.mp4")
    reports, runs = tmp_path / "reports", tmp_path / "runs"
    for _ in range(2):
        evaluate.run(tmp_path, tmp_path / "models", reports, runs, evaluate=settings)
    dataset = Dataset(tmp_path)
    clips = dataset.rows(EvalClip)
    assert sorted(clip.reference for clip in clips) == ["match", "truth", "truth"]
    for clip in clips:
        regions = dataset.regions(clip)
        assert clip.digest == hashlib.sha256(regions.numpy().tobytes()).hexdigest()[:16]
        share = float((regions == 2).double().mean())
        assert share == pytest.approx(clip.disoccluded_share, abs=1e-5)
        assert share > 0.02
    rows = dataset.rows(Score)
    assert len(rows) == 3 * 7 + 3, (
        "five baselines, fill and a command on three clips, and one external film, three times"
    )
    by_kind = {row.kind: row for row in rows if row.method.startswith("external: elsewhere")}
    row, aligned, flat = (by_kind[kind] for kind in ("external", "aligned", "flat"))
    assert row.psnr_db == 100 == row.psnr_disoccluded_db, "it is the true film"
    assert aligned.psnr_db == 100 and (aligned.strength_ratio, aligned.convergence_shift_percent) == (1, 0)
    assert flat.psnr_db < 30 and flat.haarpsi < aligned.haarpsi == 1
    by_method = {row.method: row.psnr_visible_db for row in rows if row.clip == clips[0].id}
    assert by_method["fill"] > by_method["command: masks"]
    assert by_method["fill"] > by_method["best shift"] > by_method["identity"]
    for row in rows:
        blocks = read_blocks(block_file(dataset.path(Score).parent, row.id))
        for name in ("worst_block", "chroma_excess"):
            assert np.nanmax(blocks[name]) == pytest.approx(getattr(row, name), abs=2e-4)
    totals = {row.id: row for row in dataset.rows(AggregateScore)}
    assert totals["fill psnr_db"].films == 3 and totals["external: elsewhere psnr_db"].films == 1
    for name in ("evaluation.md", "index.html"):
        report = (reports / name).read_text()
        assert "cards1" in report and "elsewhere" in report
    for name in ("evaluation.json", "evaluation_plots.json"):
        assert "elsewhere" in (reports / name).read_text()
    assert (reports / "evaluation.png").stat().st_size > 1000
    assert len(list(runs.iterdir())) == 1, "the same evaluation is the same run"


def write_dataset(data: Path, film: Film, correction: Correction, split: str) -> Dataset:
    """Write the tables of a dataset with one clip."""
    dataset = write_rows(
        data,
        {
            Film: [film],
            Clip: [a_clip("c", "f", height=HEIGHT, width=WIDTH)],
            Correction: [correction],
            ClipDisparity: [ClipDisparity("c", "k", 0.0, 1.0)],
            AcceptedClip: [AcceptedClip("c", "f", split)],
        },
    )
    dataset.folder("evaluate").mkdir()
    return dataset


@pytest.mark.parametrize(
    ("film", "correction", "reference"),
    [
        ({}, {"shift_px": 3}, "truth"),
        ({"crop_top": 2, "crop_bottom": 2}, {}, "match"),
        ({"height": 2 * HEIGHT}, {}, "match"),
        ({}, {"vertical_px": 1}, "match"),
        ({}, {"swapped": True}, "match"),
    ],
)
def test_ground_truth_is_used_only_for_unaltered_images(
    tmp_path: Path, params: Params, film: dict[str, int], correction: dict[str, int], reference: str
) -> None:
    shot = cards(1)
    row = a_film("f", **{"height": HEIGHT, "width": WIDTH} | film)
    dataset = write_dataset(tmp_path, row, a_shift("c", **{"shift_px": 0} | correction), "test")
    for side in ("left", "right"):
        write_frames(dataset.file("split", "c", side), getattr(shot, side))
    dataset.folder("raw").mkdir()
    truth = ground_truth_file(dataset.folder("raw") / "f")
    write_ground_truth(truth, shot.right_disparity, shot.right_occlusion)
    (clip,) = freeze_manifest(dataset, params.evaluate.regions)
    assert clip.reference == reference


def test_a_dataset_without_held_out_clips_is_a_user_error(tmp_path: Path, params: Params) -> None:
    dataset = write_dataset(tmp_path, a_film("f"), a_shift("c"), "train")
    with pytest.raises(UserError, match="no clip is held out; set split to test"):
        freeze_manifest(dataset, params.evaluate.regions)

"""The paper's comparisons as pages: places, borders, exact errors; the whole command with tiny weights."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import PROJECT, a_clip, a_film, coarse_cards, eval_clip
from small_dataset import write_rows
from test_stages import still_noise, write_cards
from typer.testing import CliRunner

from secondeye.cli import app
from secondeye.dataset.schema import AcceptedClip, Clip, Film
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import Method
from secondeye.evaluation.regions import DISOCCLUDED, VISIBLE
from secondeye.inpaint.tiny import make_tiny
from secondeye.paper_figures import clips, pages
from secondeye.paper_figures.crops import cut_out, find_places
from secondeye.paper_figures.methods import missing_weights
from secondeye.paper_figures.windows import find_borders, measure_borders
from secondeye.params import load_params


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["report", "figures", *map(str, arguments)])
    assert result.exception is not None, "expected to fail"
    return str(result.exception)


@pytest.mark.parametrize(
    ("frames", "overlap", "borders"),
    [(12, 0, [4, 8]), (12, 1, [4, 7, 10]), (8, 1, [4, 7]), (8, 3, [4, 5, 6, 7]), (4, 1, [])],
)
def test_borders_are_the_first_new_frames_of_windows(frames: int, overlap: int, borders: list[int]) -> None:
    assert find_borders(frames, 4, overlap) == borders


def test_a_step_at_a_border_is_measured_there_and_only_there() -> None:
    truth = torch.rand(8, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 0.5
    regions = torch.full((8, 1, 16, 24), VISIBLE, dtype=torch.uint8)
    regions[..., 4:9] = DISOCCLUDED
    right = truth.clone()
    right[4:, ..., 4:9] += 10 / 255  # the second window is brighter
    right[..., 12:] += torch.rand(8, 1, 1, 12)  # what is no hole does not count
    shot = EvalFrames(truth, truth, torch.zeros(8, 1, 16, 24), regions)
    errors = measure_borders(right, shot, 4, 0)
    assert (errors.borders, errors.overlap_frames) == (1, 0)
    assert errors.at_borders == pytest.approx(10, abs=1e-3) and errors.elsewhere == pytest.approx(0, abs=1e-3)
    early = measure_borders(
        torch.cat([right[1:], right[-1:]]), shot._replace(right=truth[[*range(1, 8), 7]]), 4, 0
    )
    assert early.at_borders == pytest.approx(0, abs=1e-3), "one frame earlier it is inside a window"
    assert early.elsewhere == pytest.approx(10 / 6**0.5, abs=1e-3)


def test_places_show_the_largest_holes_and_do_not_overlap() -> None:
    holes = torch.zeros(1, 1, 128, 256, dtype=torch.bool)
    holes[..., 20:60, 200:220] = True
    holes[..., 90:110, 30:40] = True
    (rows, columns), second = find_places(holes)
    assert rows.start <= 40 < rows.stop and columns.start <= 210 < columns.stop
    assert second[0].start <= 100 < second[0].stop and second[1].start <= 35 < second[1].stop
    assert len(find_places(torch.zeros_like(holes))) == 2, "without holes, places in the middle"
    image = np.arange(128 * 256 * 3, dtype=np.uint8).reshape(128, 256, 3)
    assert cut_out(image, (rows, columns)).shape == image.shape


def test_methods_without_weights_are_found(tmp_path: Path) -> None:
    assert missing_weights(Method("fill", "inpainter", inpainter="fill")) is None
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=tmp_path / "light")
    assert missing_weights(light) == tmp_path / "light"
    (tmp_path / "light").mkdir()
    assert missing_weights(light) is None


def test_bad_arguments_are_one_line_before_any_work(in_project: Path, tmp_path: Path) -> None:
    assert "film.mp4: does not exist" in run(tmp_path / "film.mp4", "--output", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "film.txt").write_text("mine")
    (tmp_path / "figure_7.html").write_text("old")
    for option in ([], ["--overwrite"]):
        assert "holds other files (film.txt)" in run("--output", tmp_path, *option)
    (tmp_path / "film.txt").unlink()
    assert "already exists; give --output another name, or add --overwrite" in run("--output", tmp_path)


def test_a_failed_run_keeps_the_old_figures(
    in_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "out" / "index.html"
    old.parent.mkdir()
    old.write_text("old")
    film = tmp_path / "cards_sbs.mp4"
    write_cards(film, coarse_cards(2, 96, 192, near_px=16, far_px=4, card_px=40, seed=1))

    def fail(part: Path, *_: object) -> None:
        (part / "figure_7_1.png").write_bytes(b"half")
        raise RuntimeError("stopped")

    monkeypatch.setattr(pages, "_run", fail)
    assert run(film, "--output", old.parent, "--overwrite") == "stopped"
    assert old.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == [
        "cards_sbs.mp4",
        "out",
    ]


def test_the_clips_with_the_largest_disocclusions_stand_for_a_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = {"a": 0.1, "b": 0.3, "c": 0.2, "d": 0.05}
    films = {"a": "one", "b": "one", "c": "one", "d": "two"}
    found = [replace(eval_clip(id, films[id]), disoccluded_share=share) for id, share in shares.items()]
    monkeypatch.setattr(clips, "freeze_manifest", lambda dataset, regions: found)
    tables = {
        Film: [a_film("one"), a_film("two")],
        Clip: [a_clip(id, film) for id, film in films.items()],
        AcceptedClip: [AcceptedClip(id, film, "test") for id, film in films.items()],
    }
    dataset, params = write_rows(tmp_path, tables), load_params(PROJECT / "params.yaml")
    for per_film, chosen in ((1, ["b", "d"]), (2, ["b", "c", "d"])):
        assert [clip.id for clip in clips.dataset_clips(dataset, params, per_film)] == chosen


def test_without_a_usable_film_there_are_no_figures(in_project: Path, tmp_path: Path) -> None:
    write_cards(tmp_path / "noise_sbs.mp4", still_noise(1))
    message = run(tmp_path / "noise_sbs.mp4", "--output", tmp_path / "out", "--models", tmp_path)
    assert message == "none of the films can be used; the reasons are listed above"
    assert [path.name for path in tmp_path.iterdir()] == ["noise_sbs.mp4"]


@pytest.mark.slow
def test_all_figures_of_a_film_with_tiny_weights(in_project: Path, tmp_path: Path) -> None:
    """Two windows of a one-step network for 128 x 128 px on a film of 192 x 96: tiles, borders, methods."""
    film = tmp_path / "cards_sbs.mp4"
    write_cards(film, coarse_cards(8, 96, 192, near_px=16, far_px=4, card_px=40, seed=1))
    write_cards(tmp_path / "noise_sbs.mp4", still_noise(1))
    torch.manual_seed(3)
    pipeline = make_tiny(frames=4, in_channels=13)
    pipeline.unet.register_to_config(sample_size=16)
    pipeline.save_pretrained(tmp_path / "models" / "inpaint" / "diffusion")
    out = tmp_path / "out"
    command = ["report", "figures", tmp_path, "--models", tmp_path / "models", "--output", out]
    result = CliRunner().invoke(app, [str(argument) for argument in command], catch_exceptions=False)
    assert f"{out / 'index.html'}: 4 figures" in result.stdout
    names = [f"figure_{number}" for number in (7, 8, 9, 10)]
    files = {"index.html", "figures.md", *(f"{name}{end}" for name in names for end in (".html", "_1.png"))}
    assert {path.name for path in out.iterdir()} == files
    text = (out / "figures.md").read_text()
    page = {name: (out / f"{name}.html").read_text() for name in names}
    assert all(page[name].count("data:image/jpeg;base64,") == 1 for name in names)
    for method in ("identity", "best shift", "motion + shipped light"):
        assert f"| {method} |" in text
    assert "student + shipped light</code> is not shown" in page["figure_7"]
    assert "noise_sbs.mp4: no stereo pair" in page["figure_7"] and "1 clip of 1 film" in page["figure_7"]
    for method in ("nearest", "Telea", "fill", "shipped light", "diffusion", "VAE round trip"):
        assert f'<td class="word">{method}</td>' in page["figure_8"]
    assert re.search(r"\| 1x2 tiles, \d+x96 \|", text) and "| one tile, " in text
    values = re.findall(r"\| (without overlap|overlap of 1 frame) \| (\d) \| ([\d.]+) \| ([\d.]+) \|", text)
    assert [value[:2] for value in values] == [("without overlap", "1"), ("overlap of 1 frame", "2")]
    assert "**" not in text, "one film shows nothing beyond chance"
    methods = [
        page[name].partition("<h3>Verdicts")[2].partition("</table>")[0].count("<tr>") for name in names
    ]
    # Without the header; figure 7 adds the left view and the truth, figure 8 shows no identity or best shift.
    for name, count in zip(names, (methods[0] + 1, methods[1] - 1, 3, 3), strict=True):
        rows = np.array_split(cv2.imread(str(out / f"{name}_1.png")), count)
        shown = [cv2.resize(row[20:], (64, 32)).astype(int) for row in rows]
        differ = sum(abs(one - other).max() > 8 for one, other in pairwise(shown))
        # Nothing moves behind the card, so `propagation` equals `fill`.
        assert differ >= count - 1 - (name == "figure_8"), f"{name}: rows are equal"

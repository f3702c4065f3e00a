"""The split stage on films whose shots, fades and borders are known."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import mv_hevc
import numpy as np
import pytest
from conftest import damage, moving_images
from test_source_views import encoded, garble

from secondeye.dataset.clip_paths import clip_file
from secondeye.dataset.duplicates import find_duplicates
from secondeye.dataset.perceptual_hash import parse_hashes
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import Clip, FailedItem, Film, SkippedClip
from secondeye.execution.incremental import BadClip
from secondeye.params import DatasetParams, Split, load_params
from secondeye.stages import split
from secondeye.system.errors import UserError
from secondeye.video.probe import BT709
from secondeye.video.write import FilmWriter, read_lossless, write_film

PROJECT = Path(__file__).parent.parent
HEIGHT, WIDTH, NEAR = 90, 160, 4
FPS = 20


@pytest.fixture
def section(monkeypatch: pytest.MonkeyPatch) -> Split:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    section = load_params(PROJECT / "params.yaml").split
    return replace(section, height=HEIGHT, width=WIDTH, window_frames=4, max_seconds=1.0)


def shot(frames: int, seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Both views side by side, uint8 [T, H, 2 W, 3]: a plane NEAR px in front of the screen."""
    wide = moving_images(frames, height, width + NEAR, seed)
    return np.concatenate([wide[:, :, :width], wide[:, :, NEAR:]], axis=2)


def black(frames: int, level: int = 0) -> np.ndarray:
    return np.full((frames, HEIGHT, 2 * WIDTH, 3), level, np.uint8)


def faded(images: np.ndarray, frames: int) -> np.ndarray:
    """The last frames go to black."""
    share = np.ones(len(images))
    share[-frames:] = np.linspace(1, 0, frames)
    return (images * share[:, None, None, None]).astype(np.uint8)


def write(path: Path, *shots: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_film(path, iter(np.concatenate(shots)), Fraction(FPS), crf=4)
    return path


def run(root: Path, section: Split) -> tuple[list[Film], list[Clip], list[SkippedClip]]:
    split.run(root, split=section, dataset=DatasetParams(max_bad_fraction=1.0))
    dataset = Dataset(root)
    clips = sorted(dataset.rows(Clip), key=lambda clip: (clip.film, clip.start))
    skipped = sorted(dataset.rows(SkippedClip), key=lambda piece: piece.start)
    return dataset.rows(Film), clips, skipped


def bounds(rows: list[Clip] | list[SkippedClip]) -> list[tuple[int, int]]:
    return [(row.start, row.stop) for row in rows]


def test_clips_lie_between_cuts_and_fades(tmp_path: Path, section: Split) -> None:
    write(
        tmp_path / "raw" / "f_sbs.mp4",
        shot(12, 1),  # 0, a cut
        faded(shot(16, 2), 6),  # 12; its last frame is black
        black(5),  # 28
        shot(14, 3),  # 33, a cut to gray
        black(10, 128),  # 47
        np.repeat(shot(1, 4), 12, 0),  # 57, static
        shot(30, 5),  # 69, longer than a second
        shot(5, 6),  # 99
    )
    films, clips, skipped = run(tmp_path, section)
    assert bounds(clips) == [(0, 12), (12, 27), (33, 47), (69, 84), (84, 99), (99, 104)]
    assert [clip.shot for clip in clips] == [0, 1, 2, 4, 4, 5]
    assert [(*b, d.reason) for b, d in zip(bounds(skipped), skipped, strict=True)] == [
        (27, 33, "black"),
        (47, 57, "blank"),
        (57, 69, "static"),
    ]
    assert films[0].shots == 6 and films[0].clips == 6 and films[0].frames == 104 and films[0].remark

    _, clips, skipped = run(tmp_path, replace(section, trim_seconds=0.1))
    assert bounds(clips) == [(0, 10), (14, 25), (35, 45), (71, 84), (84, 97)]
    assert (skipped[-1].start, skipped[-1].stop, skipped[-1].reason) == (99, 104, "too short")
    assert skipped[-1].detail == "3 frames left after trimming, 4 needed"


@pytest.mark.parametrize("borders", [(12, 15, 0, 0), (0, 0, 20, 9), (3, 3, 2, 2)])
def test_black_borders_are_cropped_in_both_views(
    tmp_path: Path, section: Split, borders: tuple[int, int, int, int]
) -> None:
    top, bottom, left, right = borders
    height, width = 270, 480
    inside = shot(10, 1, height - top - bottom, width - left - right)
    images = np.zeros((10, height, 2 * width, 3), np.uint8)
    for view, image in enumerate(np.split(inside, 2, axis=2)):
        images[:, top : height - bottom, view * width + left : (view + 1) * width - right] = image
    images[:, 4, 5::200] = 200  # specks
    write(tmp_path / "raw" / "f_sbs.mp4", images)
    ((film,), (clip,), _) = run(tmp_path, section)
    assert (film.crop_top, film.crop_bottom, film.crop_left, film.crop_right) == borders
    views = [read_lossless(clip_file(tmp_path / "split", clip.id, view)) for view in ("left", "right")]
    shown = np.split(inside[0], 2, axis=1)
    for view, truth in zip(views, shown, strict=True):
        assert view[0].min(axis=2).max(axis=1).min() > 20 and view[0].min(axis=2).max(axis=0).min() > 20
        rows, columns = truth.shape[:2]
        kept_rows, kept_columns = min(rows, round(columns * 9 / 16)), min(columns, round(rows * 16 / 9))
        y, x = (rows - kept_rows) // 2, (columns - kept_columns) // 2
        middle = cv2.resize(
            truth[y : y + kept_rows, x : x + kept_columns], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA
        )
        assert np.abs(middle.astype(float) - view[0]).mean() < 3


def test_a_border_of_one_view_is_cropped_in_both(tmp_path: Path, section: Split) -> None:
    images = shot(10, 1, 270, 480)
    images[:, :, 480 : 480 + 16] = 0  # a floating window
    write(tmp_path / "raw" / "f_sbs.mp4", images)
    ((film,), _, _) = run(tmp_path, section)
    assert (film.crop_top, film.crop_bottom, film.crop_left, film.crop_right) == (0, 0, 16, 0)


def test_a_still_is_one_clip_of_one_frame(tmp_path: Path, section: Split) -> None:
    (tmp_path / "raw").mkdir()
    cv2.imwrite(str(tmp_path / "raw" / "still_sbs.png"), shot(1, 1)[0][..., ::-1])
    _, clips, skipped = run(tmp_path, replace(section, window_frames=25, trim_seconds=1.0))
    assert bounds(clips) == [(0, 1)] and clips[0].stride == 1 and not skipped
    assert len(parse_hashes(clips[0].perceptual_hash)) == 2, "one of each view"


def test_an_uneven_frame_rate_is_reported_and_times_stay_seconds(tmp_path: Path, section: Split) -> None:
    (tmp_path / "raw").mkdir()
    images = np.concatenate([shot(20, 1), shot(20, 2)])
    steps = [50] * 20 + [100] * 20  # ms
    options = {"fps": Fraction(FPS), "time_base": Fraction(1, 1000), "colour": BT709}
    with FilmWriter(tmp_path / "raw" / "f_sbs.mp4", 2 * WIDTH, HEIGHT, **options) as writer:
        for image, stamp in zip(images, np.cumsum([0, *steps[:-1]]), strict=True):
            writer.write(image, int(stamp))
    ((film,), clips, _) = run(tmp_path, replace(section, trim_seconds=0.2))
    assert "uneven frame rate, 50 to 100 ms" in film.remark
    assert bounds(clips) == [(0, 16), (22, 31), (31, 40)], "0.2 s are 4 frames, then 2; pieces last 0.9 s"


def test_no_clip_spans_a_jump_in_time(tmp_path: Path, section: Split) -> None:
    (tmp_path / "raw").mkdir()
    steps = [0, *[50] * 14, 3_000, *[50] * 10, 450, *[50] * 13]  # ms; half a second may be a slow moment
    options = {"fps": Fraction(FPS), "time_base": Fraction(1, 1000), "colour": BT709}
    with FilmWriter(tmp_path / "raw" / "f_sbs.mp4", 2 * WIDTH, HEIGHT, **options) as writer:
        for image, stamp in zip(shot(40, 1), np.cumsum(steps), strict=True):
            writer.write(image, int(stamp))
    ((film,), clips, _) = run(tmp_path, replace(section, max_seconds=2.0))
    assert film.shots == 2 and bounds(clips) == [(0, 15), (15, 40)]


def test_a_damaged_film_gives_clips_around_the_picture_that_is_skipped(
    tmp_path: Path, section: Split
) -> None:
    damage(write(tmp_path / "raw" / "f_sbs.mp4", shot(30, 1), shot(30, 2)))
    ((film,), clips, _) = run(tmp_path, section)
    assert "skipped since they do not decode: 1 frame, first before frame 30" in film.remark
    assert film.frames == 59 and bounds(clips)[0] == (0, 15) and bounds(clips)[-1][1] == 59


def test_a_film_without_a_clip_is_skipped_with_the_reason(tmp_path: Path, section: Split) -> None:
    write(tmp_path / "raw" / "dull_sbs.mp4", np.repeat(shot(1, 1), 40, 0))
    write(tmp_path / "raw" / "good_sbs.mp4", shot(10, 2))
    films, _, _ = run(tmp_path, section)
    assert [film.name for film in films] == ["good_sbs.mp4"]
    (skipped_film,) = Dataset(tmp_path).skipped_films
    assert skipped_film == FailedItem("dull_sbs.mp4", "no clip", "shots: 1, pieces skipped: 2 static")


def test_spherical_films_are_skipped(tmp_path: Path, section: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "raw" / "ball_sbs.mp4", shot(10, 1))
    monkeypatch.setattr(split, "spherical_reason", lambda source: "a sphere, says the file")
    with pytest.raises(UserError, match="none of the films can be used"):
        run(tmp_path, section)
    (skipped_film,) = Dataset(tmp_path).skipped_films
    assert (skipped_film.reason, skipped_film.detail) == ("spherical", "a sphere, says the file")


def test_a_film_with_swapped_views_is_a_duplicate(tmp_path: Path, section: Split) -> None:
    film = shot(12, 2)
    write(tmp_path / "raw" / "one_sbs.mp4", film)
    write(tmp_path / "raw" / "two_sbs.mp4", np.concatenate([film[:, :, WIDTH:], film[:, :, :WIDTH]], axis=2))
    _, clips, _ = run(tmp_path, section)
    assert len(find_duplicates(clips, 8)) == 1


def test_no_clip_spans_an_image_without_partner(tmp_path: Path, section: Split) -> None:
    for name, view in zip(("cam_l", "cam_r"), np.split(shot(20, 1), 2, axis=2), strict=True):
        (tmp_path / "raw" / name).mkdir(parents=True)
        for index, image in enumerate(view):
            if (name, index) != ("cam_r", 8):
                cv2.imwrite(str(tmp_path / "raw" / name / f"{index:03}.png"), image[..., ::-1])
    (film,), clips, _ = run(tmp_path, section)
    assert bounds(clips) == [(0, 8), (8, 19)] and film.frames == 19
    assert "dropped without a partner: 1 image, first left view/008.png" in film.remark


def test_an_unseekable_film_is_decoded_at_most_three_times(
    tmp_path: Path, section: Split, decoded: list[int]
) -> None:
    """Once for the scan, once for the borders, once for all clips."""
    (tmp_path / "raw").mkdir()
    uneven = np.concatenate([shot(13, 1), shot(47, 2)])  # clips of 4 and of 5 frames
    encoded(tmp_path / "raw" / "f_sbs.avi", uneven, "mpeg4", 12)
    _, clips, _ = run(tmp_path, replace(section, max_seconds=0.2))
    assert {clip.stop - clip.start for clip in clips} == {4, 5} and len(decoded) <= 3 * 60


def test_a_two_view_film_gives_the_same_clips_as_two_films(
    tmp_path: Path, section: Split, decoded: list[int]
) -> None:
    views = np.split(np.concatenate([shot(31, 1), black(4), shot(20, 2)]), 2, axis=2)
    left, right = (mv_hevc.encode(view, reordered=2, key_every=9) for view in views)
    found = []
    for name, films in {
        "apart": {"f_left.mov": left, "f_right.mov": right},
        "together": {"f.mov": mv_hevc.two_layers(left, right)},
    }.items():
        (tmp_path / name / "raw").mkdir(parents=True)
        for film, packets in films.items():
            mv_hevc.write(tmp_path / name / "raw" / film, packets)
        decoded.clear()
        found.append(run(tmp_path / name, section))
    ((apart,), clips, skipped), ((together,), same_clips, same_skipped) = found
    assert bounds(clips) == [(0, 15), (15, 31), (35, 55)] == bounds(same_clips)
    assert [replace(clip, id="", key="", film="") for clip in clips] == [
        replace(clip, id="", key="", film="") for clip in same_clips
    ]
    assert [(*b, d.reason) for b, d in zip(bounds(skipped), skipped, strict=True)] == [(31, 35, "black")]
    assert bounds(same_skipped) == bounds(skipped) and len(decoded) <= 3 * 55
    assert together.remark == "both views are layers of the stream; the base view is taken as the left one"
    assert (together.packing, together.frames, together.fps) == ("multiview", 55, apart.fps)
    for clip, same in zip(clips, same_clips, strict=True):
        for view in ("left", "right"):
            one = read_lossless(clip_file(tmp_path / "apart" / "split", clip.id, view))
            assert np.array_equal(
                one, read_lossless(clip_file(tmp_path / "together" / "split", same.id, view))
            )


def test_a_film_whose_longest_clip_is_shorter_than_a_window_is_skipped(
    tmp_path: Path, section: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "raw" / "f_sbs.mp4", shot(20, 1))
    with pytest.raises(UserError, match="none of the films can be used"):
        run(tmp_path, replace(section, max_seconds=0.3, window_frames=7))
    detail = "split.max_seconds 0.3 limits clips to 6 frames at 20 fps, split.window_frames is 7"
    assert f"split: f_sbs.mp4 is skipped: no clip ({detail})" in capsys.readouterr().out
    assert len(run(tmp_path, replace(section, max_seconds=0.3, window_frames=6))[1]) == 3


def test_content_that_contradicts_the_name_is_an_error(tmp_path: Path, section: Split) -> None:
    write(tmp_path / "raw" / "f_tb.mp4", shot(20, 1, 96, 160))
    with pytest.raises(
        UserError, match=r"f_tb.mp4: packing tb inferred .*, but its pixels say sbs; add a line to"
    ):
        run(tmp_path, section)
    (tmp_path / "raw" / "sources.csv").write_text("film,packing,split,licence\nf_tb.mp4,sbs,,\n")
    assert len(run(tmp_path, section)[1]) == 1


def test_damaged_frames_are_counted(tmp_path: Path, section: Split) -> None:
    garble(write(tmp_path / "raw" / "one_sbs.mp4", shot(20, 1)), 10)
    (row,), _, _ = run(tmp_path, section)
    assert row.frames == 20 and "damaged frames: 1, first " in row.remark


def test_a_clip_that_fails_is_listed_as_a_skipped_piece(
    tmp_path: Path, section: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "raw" / "one_sbs.mp4", shot(12, 1), shot(12, 2))
    cut = split._cut_clip

    def fail(out: Path, name: str, key: str, source: Any, clip: Clip, *rest: Any) -> Any:
        if clip.start == 0:
            raise BadClip("failed", "of something")
        return cut(out, name, key, source, clip, *rest)

    monkeypatch.setattr(split, "_cut_clip", fail)
    _, clips, skipped = run(tmp_path, section)
    assert [clip.start for clip in clips] == [12]
    assert [(piece.start, piece.stop, piece.reason) for piece in skipped] == [(0, 12, "failed")]


def test_the_same_shot_in_two_films_is_a_duplicate_at_any_quality(tmp_path: Path, section: Split) -> None:
    write(tmp_path / "raw" / "one_sbs.mp4", shot(12, 1), shot(12, 2))
    again = shot(12, 2, 2 * HEIGHT, 2 * WIDTH)[:, ::2, ::2]
    write_film(tmp_path / "raw" / "two_sbs.mp4", iter(again), Fraction(FPS), crf=30)
    write(tmp_path / "raw" / "three_sbs.mp4", shot(12, 3))
    films, clips, _ = run(tmp_path, section)
    assert find_duplicates(clips, 8) == []
    coded = np.concatenate([shot(3, 9), shot(12, 2)])
    write_film(tmp_path / "raw" / "four_sbs.mp4", iter(coded), Fraction(FPS), crf=32)
    films, clips, _ = run(tmp_path, section)
    names = {film.id: film.name for film in films}
    pairs = [{names[first.film], names[second.film]} for first, second in find_duplicates(clips, 8)]
    assert pairs == [{"one_sbs.mp4", "four_sbs.mp4"}]


def test_adding_a_film_rebuilds_no_other(tmp_path: Path, section: Split) -> None:
    write(tmp_path / "raw" / "one_sbs.mp4", shot(10, 1))
    run(tmp_path, section)
    before = {path: path.stat().st_mtime_ns for path in made(tmp_path)}
    write(tmp_path / "raw" / "two_sbs.mp4", shot(10, 2))
    run(tmp_path, section)
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(set(made(tmp_path))) > len(
        before
    )


def made(root: Path) -> Iterator[Path]:
    return (path for path in (root / "split").rglob("*") if path.suffix in (".mkv", ".json"))


def skipped_films(root: Path) -> list[tuple[str, str, str]]:
    return [(row.id, row.reason, row.detail) for row in Dataset(root).skipped_films]


def test_a_film_renamed_as_advised_is_scanned_again(tmp_path: Path, section: Split) -> None:
    write(tmp_path / "raw" / "film_sbs.mp4", shot(12, 1))
    ball = write(tmp_path / "raw" / "ball_180_sbs.mp4", shot(12, 2))
    run(tmp_path, section)
    detail = "spherical by the tag 180 in its name; rename it if it is flat"
    assert skipped_films(tmp_path) == [("ball_180_sbs.mp4", "spherical", detail)]
    flat = ball.rename(tmp_path / "raw" / "ball_sbs.mp4")
    films, clips, _ = run(tmp_path, section)
    assert not skipped_films(tmp_path) and len(films) == len(clips) == 2
    flat.rename(tmp_path / "raw" / "ball_360_sbs.mp4")
    assert len(run(tmp_path, section)[0]) == len(skipped_films(tmp_path)) == 1


def test_rows_do_not_depend_on_the_location_of_films(tmp_path: Path, section: Split) -> None:
    damage(write(tmp_path / "raw" / "f_sbs.mp4", shot(30, 1), shot(30, 2)), rest=True)
    (tmp_path / "raw" / "junk_sbs.mp4").write_bytes(b"junk")
    ((film,), _, _) = run(tmp_path, section)
    assert "; ends early after " in film.remark and str(tmp_path) not in film.remark
    ((name, reason, detail),) = skipped_films(tmp_path)
    assert (name, reason) == ("junk_sbs.mp4", "not a film")
    assert detail.startswith("not a film that FFmpeg can read (")


def test_rows_name_the_views_of_a_pair_left_and_right(tmp_path: Path, section: Split) -> None:
    left, right = np.split(np.concatenate([shot(30, 1), shot(30, 2)]), 2, axis=2)
    write(tmp_path / "raw" / "cut_left.mp4", left)
    damage(write(tmp_path / "raw" / "cut_right.mp4", right), rest=True)
    write(tmp_path / "raw" / "junk_left.mp4", left)
    (tmp_path / "raw" / "junk_right.mp4").write_bytes(b"junk")
    ((film,), _, _) = run(tmp_path, section)
    assert "; right view: ends early after " in film.remark and str(tmp_path) not in film.remark
    ((name, _, detail),) = skipped_films(tmp_path)
    assert name == "junk_left.mp4" and detail.startswith("right view: not a film that FFmpeg can read (")
    for view in ("left", "right"):
        (tmp_path / "raw" / f"cut_{view}.mp4").rename(tmp_path / "raw" / f"new_{view}.mp4")
    ((film,), _, _) = run(tmp_path, section)
    assert "new_" in film.remark and "cut_" not in film.remark


def test_a_film_present_twice_is_used_once(tmp_path: Path, section: Split) -> None:
    film = write(tmp_path / "raw" / "a_sbs.mp4", shot(12, 1))
    (tmp_path / "raw" / "b_sbs.mp4").write_bytes(film.read_bytes())
    (tmp_path / "raw" / "sources.csv").write_text("film,packing,split,licence\nb_sbs.mp4,,,CC0-1.0\n")
    films, _, _ = run(tmp_path, section)
    assert [film.name for film in films] == ["b_sbs.mp4"], "the one whose licence is known"
    assert skipped_films(tmp_path) == [("a_sbs.mp4", "a copy", "the same film as b_sbs.mp4")]
    (tmp_path / "raw" / "sources.csv").write_text(
        "film,packing,split,licence\na_sbs.mp4,,train,\nb_sbs.mp4,,test,\n"
    )
    with pytest.raises(UserError, match=r"a_sbs.mp4 and b_sbs.mp4 are the same film with .* remove one"):
        run(tmp_path, section)


def test_upscaled_films_are_reported(tmp_path: Path, section: Split) -> None:
    write(tmp_path / "raw" / "f_sbs.mp4", shot(12, 1, 60, 106))
    ((film,), _, _) = run(tmp_path, section)
    assert film.remark.endswith("enlarged 1.5 times")
    ((film,), _, _) = run(tmp_path, replace(section, height=60, width=106))
    assert "enlarged" not in film.remark

"""Both views synthesised at half the shift: mirror symmetry, widths of holes, doors, resuming, memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import moving_images
from test_cli import Run, one_line, secondeye  # noqa: F401
from test_resume import after, short_segments  # noqa: F401
from test_still_parts import LETTERBOX, boxed, diffusion, rendered  # noqa: F401
from torch import Tensor

from secondeye.conversion import convert as conversion
from secondeye.conversion.bundle import SHIPPED, Bundle, settings_from_bundle, write_bundle
from secondeye.conversion.convert import convert
from secondeye.conversion.memory import choose_window_frames, estimate_bytes
from secondeye.conversion.picture import Picture
from secondeye.conversion.provenance import has_synthesised_left, read_record
from secondeye.conversion.render import RenderedWindow, SourceWindow, render
from secondeye.conversion.settings import ConversionSettings
from secondeye.film.layouts import anaglyph
from secondeye.film.still_parts import NOTHING_STILL
from secondeye.imaging.arrays import mirror, occlusion_mask
from secondeye.inpaint import Inpainted, Inpainter, InpaintOptions, Warped
from secondeye.inpaint.diffusion import Diffusion
from secondeye.inpaint.fill import fill_shot
from secondeye.inpaint.weights import load_pipeline
from secondeye.system.errors import UserError
from secondeye.video.probe import probe
from secondeye.video.read import decode_film
from secondeye.video.write import FilmWriter, write_lossless

# ruff: noqa: F811  # parameters have the names of the fixtures

SETTINGS = ConversionSettings(8.0, 0.5, "auto", "fill", 0, "ultrafast", None, views="both", mono=True)
HEIGHT, WIDTH, FRAMES = 48, 96, 6
SLOW_LIGHT, SLOW_DIFFUSION = (
    pytest.param(name, marks=pytest.mark.slow(seconds=10)) for name in ("light", "diffusion")
)
MakeFilm = Callable[..., Path]


def a_card() -> np.ndarray:  # float32 [T, H, W]
    """Return the depth of a card that moves before a far wall, without any symmetry."""
    maps = np.zeros((FRAMES, HEIGHT, WIDTH), np.float32)
    for t in range(FRAMES):
        maps[t, 9:33, 20 + t : 51 + t] = 1
    return maps


def render_one(
    images: Tensor,  # uint8 [T, H, W, 3]
    depth: Tensor,  # [T, 1, H, W]
    inpainter: Inpainter,
    views: str,
    strength_percent: float,
    convergence: float,
) -> RenderedWindow:
    whole = Picture(NOTHING_STILL, *images.shape[1:3])
    (window,) = render(
        [SourceWindow(images, depth)],
        inpainter,
        picture=whole,
        strength_percent=strength_percent,
        convergence=convergence,
        device="cpu",
        views=views,
    )
    return window


def test_each_view_is_shifted_by_half_of_a_constant_disparity() -> None:
    """8 px in front of the screen: the left view 4 px to the right, the right one 4 px to the left."""
    source = torch.from_numpy(moving_images(2, 32, 100))
    window = render_one(source, torch.ones(2, 1, 32, 100), fill_shot, "both", 8.0, 0.0)
    assert torch.equal(window.left[:, :, 4:], source[:, :, :-4])
    assert torch.equal(window.right[:, :, :-4], source[:, :, 4:])
    assert torch.equal(window.source, source)
    right_only = render_one(source, torch.ones(2, 1, 32, 100), fill_shot, "right", 8.0, 0.0)
    assert torch.equal(right_only.left, source)
    assert torch.equal(right_only.right[:, :, :-8], source[:, :, 8:])


def test_the_widest_hole_is_half_as_wide() -> None:
    """A card 8 px in front of a wall uncovers 8 px beside it, or 4 px in each view, on opposite sides."""
    source, depth = (
        torch.from_numpy(moving_images(FRAMES, HEIGHT, WIDTH)),
        torch.from_numpy(a_card())[:, None],
    )
    holes: list[Tensor] = []

    def watch(windows: Iterable[Warped], state: object = None) -> Iterator[Inpainted]:
        for warped in windows:
            holes.append(occlusion_mask(warped.coverage)[0, 0, 20])
            yield Inpainted(warped.frames, {})

    window = render_one(source, depth, watch, "right", 100 * 8 / WIDTH, 0.0)
    assert [int(row.sum()) for row in holes] == [8] and window.view.share == 1
    holes.clear()
    window = render_one(source, depth, watch, "both", 100 * 8 / WIDTH, 0.0)
    assert [int(row.sum()) for row in holes] == [4, 4]
    left, right = holes[0].flip(0), holes[1]  # the left view is inpainted mirrored
    assert int(left.nonzero()[-1]) < int(right.nonzero()[0])
    assert torch.equal(window.warp_again(0)[1][0, 20], right)


@pytest.mark.parametrize("inpainter", ["fill", SLOW_LIGHT, SLOW_DIFFUSION])
@pytest.mark.usefixtures("one_thread")
def test_a_mirrored_film_has_mirrored_and_exchanged_views(
    tmp_path: Path, diffusion: Path, inpainter: str
) -> None:
    """To the bit, through the whole conversion: with depth maps, since depth estimates are not symmetric."""
    model = {"fill": None, "light": SHIPPED, "diffusion": diffusion}[inpainter]
    settings = replace(SETTINGS, inpainter=inpainter, model=model, tiles=1, steps=1)
    images, maps = moving_images(FRAMES, HEIGHT, WIDTH), a_card()
    views = []
    for name, flipped in (("plain", 1), ("mirrored", -1)):
        write_lossless(tmp_path / f"{name}.mkv", images[:, :, ::flipped].copy())
        np.save(tmp_path / f"{name}.npy", maps[:, :, ::flipped])
        views.append(
            rendered(tmp_path / f"{name}.mkv", replace(settings, depth_maps=tmp_path / f"{name}.npy"))
        )
    plain, mirrored = views
    assert torch.equal(mirrored.left, mirror(plain.right)) and torch.equal(mirrored.right, mirror(plain.left))
    source = torch.from_numpy(images)
    assert not torch.equal(plain.left, source) and not torch.equal(plain.right, source)


def test_still_parts_are_equal_in_both_views(tmp_path: Path) -> None:
    """Bands, and a logo in a shot that moves for two seconds."""
    images = boxed(moving_images(45, HEIGHT, WIDTH), LETTERBOX)
    images[:, 20:30, 8:14] = 230
    images[:, 22:28, 10:12] = 20
    write_lossless(tmp_path / "film.mkv", images)
    left, right, log = rendered(tmp_path / "film.mkv", replace(SETTINGS, depth="motion"))
    source = torch.from_numpy(images)
    assert any("letterbox in 1 of 1 shot" in line for line in log)
    assert any("text or logo in 1 of 1 shot" in line for line in log)
    for part in (np.s_[:, :13], np.s_[:, -11:], np.s_[:, 22:28, 10:12]):
        assert torch.equal(left[part], source[part]) and torch.equal(right[part], source[part])
    assert not torch.equal(left, right) and not torch.equal(left, source)


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("inpainter", ["fill", SLOW_DIFFUSION])
def test_an_interrupted_film_continues_to_the_same_bytes(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch, diffusion: Path, inpainter: str
) -> None:
    """The states of both views are in the checkpoint; windows of another length change nothing."""
    film = make_film(shots=(20,), height=64, width=64, sound=False)
    model = diffusion if inpainter == "diffusion" else None
    settings = replace(SETTINGS, depth="motion", inpainter=inpainter, model=model, tiles=1, steps=1)
    whole, broken = film.with_name("whole.mp4"), film.with_name("broken.mp4")
    convert(film, whole, settings)
    with monkeypatch.context() as patch:
        patch.setattr(FilmWriter, "write", after(13, FilmWriter.write))
        with pytest.raises(KeyboardInterrupt):
            convert(film, broken, settings)
    assert list(film.with_name(".broken.mp4.unfinished").glob("inpaint_*.safetensors"))
    monkeypatch.setattr(conversion, "choose_window_frames", lambda *_: 3)
    convert(film, broken, settings)
    assert broken.read_bytes() == whole.read_bytes()


def test_the_command_line_writes_and_records_both_views(secondeye: Run, make_film: MakeFilm) -> None:
    film = make_film(shots=(4,), sound=False)
    options = ["--depth", "motion", "--inpainter", "fill", "--codec", "ffv1", "--strength-percent", "10"]
    preview = film.with_name("preview.png")
    options += ["--views", "both"]
    done = secondeye("convert", film, *options, "--layout", "left-right-files", "--preview", preview)
    assert done.returncode == 0, done.stderr
    assert secondeye("convert", film, *options, "--layout", "anaglyph").returncode == 0
    source, left, right, red_cyan = (
        np.stack([frame.rgb for frame in decode_film(each)])
        for each in (film, *(film.with_name(f"film_{tag}.mkv") for tag in ("left", "right", "anaglyph")))
    )
    assert not np.array_equal(left, source) and not np.array_equal(right, source)
    assert np.array_equal(red_cyan, [anaglyph(*pair) for pair in zip(left, right, strict=True)])
    record = read_record(film.with_name("film_left.mkv"))
    assert record is not None and record["settings"]["views"] == "both"
    assert has_synthesised_left(film.with_name("film_right.mkv")) and not has_synthesised_left(film)
    again = secondeye("convert", film.with_name("film_left.mkv"), "--depth", "motion", "--inpainter", "fill")
    assert again.returncode == 0 and "is not the source but synthesised" in again.stdout
    assert preview.read_bytes().startswith(b"\x89PNG")
    refused = one_line(secondeye("convert", film, *options, "--layout", "right"))
    assert "choose --layout left-right-files" in refused
    assert "--views must be one of right, both" in one_line(secondeye("convert", film, "--views", "left"))


def test_a_bundle_states_its_views(tmp_path: Path) -> None:
    stated = Bundle("motion", "fill", strength_percent=3.0, convergence=0.5, views="both")
    folder = write_bundle(tmp_path / "bundle", stated, None, None)
    assert settings_from_bundle(folder).views == "both"
    assert settings_from_bundle(folder, views="right").views == "right"
    assert settings_from_bundle(None).views == "right"
    assert settings_from_bundle(None, views="both").describe() != settings_from_bundle(None).describe()
    text = (folder / "bundle.json").read_text()
    (folder / "bundle.json").write_text(text.replace("both", "left"))
    with pytest.raises(UserError, match="views must be one of right, both, got 'left'"):
        settings_from_bundle(folder)


def test_a_right_view_of_half_the_shift_is_not_compared_with_others(
    secondeye: Run, make_film: MakeFilm
) -> None:
    film = make_film(shots=(4,), height=96, width=128, sound=False)
    settings = replace(SETTINGS, depth="motion", codec="ffv1", crf=None)
    both = convert(film, film.with_name("both_LRF_Full_SBS.mkv"), settings).output
    right = convert(film, film.with_name("right_LRF_Full_SBS.mkv"), replace(settings, views="right")).output
    warned = {
        films: "made by --views both" in secondeye("score", *films).stdout
        for films in ((both, both), (film, both), (both, right))
    }
    assert warned == {(both, both): False, (film, both): True, (both, right): True}
    again = secondeye("convert", both, "--input-layout", "sbs", "--depth", "motion", "--inpainter", "fill")
    assert again.returncode == 0 and "is not the source but synthesised" in again.stdout


def test_memory_counts_the_second_view(make_film: MakeFilm, diffusion: Path) -> None:
    sized = replace(probe(make_film(shots=(2,), sound=False)), width=1920, height=1080)
    both = replace(SETTINGS, depth="motion", max_memory_gb=1.6)
    assert choose_window_frames(sized, both) < choose_window_frames(sized, replace(both, views="right"))
    assert estimate_bytes(1920 * 1080, 2, 2) > estimate_bytes(1920 * 1080, 2)
    pipeline = load_pipeline(diffusion / "inpaint", "cpu")
    one, two = (
        Diffusion(pipeline, InpaintOptions(tiles=1, memory_bytes=2**32, shots=shots)).plan(480, 640)
        for shots in (1, 2)
    )
    assert two.memory_bytes > one.memory_bytes and two.window_frames == one.window_frames
    assert both.inpaint_options.shots == 2

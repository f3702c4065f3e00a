"""The main job on small films: every frame, every timestamp, every packet of sound; and every mistake."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from conftest import damage, frame_seconds, moving_images, sound_packets
from moving_card import write_moving_card

from secondeye.cli import main
from secondeye.conversion import convert as conversion
from secondeye.conversion import memory, render, segments, shots
from secondeye.conversion.convert import convert
from secondeye.conversion.segments import ShotRenderer
from secondeye.conversion.settings import ConversionSettings
from secondeye.conversion.shot_depth import estimate_shot
from secondeye.depth import DepthEstimate, DepthState
from secondeye.film.shots import plan_shots
from secondeye.inpaint import light
from secondeye.system.errors import UserError
from secondeye.video import read
from secondeye.video.orientation import Orientation
from secondeye.video.probe import probe
from secondeye.video.read import DecodedFrame, ShotReader, decode_film, upright_rgb
from secondeye.video.write import FilmWriter, write_film

SETTINGS = ConversionSettings(3.0, 0.5, "motion", "fill", 10, "ultrafast", None)
MakeFilm = Callable[..., Path]


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_film_keeps_frames_stamps_size_and_sound(make_film: MakeFilm) -> None:
    film = make_film(shots=(9, 8), height=48, width=64)
    output = film.with_name("out.mp4")
    preview = film.with_name("preview.png")
    made = convert(film, output, SETTINGS, preview=preview)
    assert (made.frames, made.damage) == (17, "")
    info = probe(output)
    assert (info.width, info.height, info.frames) == (128, 48, 17)
    assert frame_seconds(output) == frame_seconds(film)
    assert sound_packets(output) == sound_packets(film)
    assert preview.read_bytes().startswith(b"\x89PNG")
    assert leftovers(film.parent) == {"film.mp4", "out.mp4", "preview.png"}
    left = [frame.rgb[:, :64] for frame in decode_film(output)]
    source = [frame.rgb for frame in decode_film(film)]
    errors = [np.abs(a.astype(int) - b).mean() for a, b in zip(left, source, strict=True)]
    assert max(errors) < 4  # codec noise only: the left eye is the film


def test_only_rendering_decodes_whole_frames_and_codecs_run_beside_it(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[tuple[tuple[int, int] | None, bool]] = []

    def record(frame: VideoFrame, size: tuple[int, int] | None, orientation: Orientation) -> np.ndarray:
        decoded.append((size, threading.current_thread() is threading.main_thread()))
        return upright_rgb(frame, size, orientation)

    encoded: list[bool] = []
    write = FilmWriter.write

    def record_write(writer: FilmWriter, rgb: np.ndarray, pts: int, stream: int) -> None:
        encoded.append(threading.current_thread() is threading.main_thread())
        write(writer, rgb, pts, stream)

    film = make_film(shots=(4,), height=64, width=512, sound=False)
    monkeypatch.setattr(read, "upright_rgb", record)
    monkeypatch.setattr(FilmWriter, "write", record_write)
    convert(film, None, SETTINGS)
    assert encoded == [False] * 4
    still, cuts, depth, views = decoded[:1], decoded[1:5], decoded[5:9], decoded[9:]
    assert still == [(None, False)], "one of each shortest shot, for what stands still on the screen"
    assert cuts == [((32, 256), False)] * 4
    assert depth == [((48, 384), False)] * 4 and views == [(None, False)] * 4


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_shortest_films_convert(make_film: MakeFilm, frames: int) -> None:
    film = make_film(shots=(frames,), sound=False)
    convert(film, None, SETTINGS)
    output = film.with_name("film_LRF_Full_SBS.mp4")
    assert frame_seconds(output) == frame_seconds(film) and len(frame_seconds(film)) == frames


@pytest.mark.parametrize(("height", "width"), [(121, 161), (48, 61), (16, 16)])
def test_odd_and_small_sizes_keep_their_size_on_request(make_film: MakeFilm, height: int, width: int) -> None:
    film = make_film(height=height, width=width, shots=(3,), sound=False)
    convert(film, None, replace(SETTINGS, exact_size=True))
    info = probe(film.with_name("film_LRF_Full_SBS.mp4"))
    assert (info.width, info.height) == (2 * width, height)


def test_variable_frame_rate_keeps_its_stamps(make_film: MakeFilm) -> None:
    stamps_ms = [0, 33, 66, 200, 233, 500, 533, 1000, 1033, 1066]
    film = make_film(shots=(10,), stamps_ms=stamps_ms)
    convert(film, None, SETTINGS)
    assert frame_seconds(film.with_name("film_LRF_Full_SBS.mp4")) == [Fraction(ms, 1000) for ms in stamps_ms]


def test_interrupted_conversion_continues_to_the_same_bytes(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(shots=(9, 8, 10))
    whole, broken = film.with_name("whole.mp4"), film.with_name("broken.mp4")
    convert(film, whole, SETTINGS)

    rendered: list[int] = []
    run = ShotRenderer.run

    def stop_at_third(self, shot, *rest):  # type: ignore[no-untyped-def]
        rendered.append(shot[0])
        if rendered == [0, 9, 17]:
            raise KeyboardInterrupt
        run(self, shot, *rest)

    monkeypatch.setattr(ShotRenderer, "run", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        convert(film, broken, SETTINGS)
    assert not broken.exists()
    convert(film, broken, SETTINGS)
    assert rendered == [0, 9, 17, 17], "finished shots were made again"
    assert broken.read_bytes() == whole.read_bytes()
    assert leftovers(film.parent) == {"film.mp4", "whole.mp4", "broken.mp4"}


def test_other_settings_do_not_continue_the_old_run(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(shots=(9, 8))
    output = film.with_name("out.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_mux", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            convert(film, output, SETTINGS)
    lines: list[str] = []
    convert(
        film, output, ConversionSettings(5.0, 0.5, "motion", "fill", 10, "ultrafast", None), log=lines.append
    )
    assert not any("already converted" in line for line in lines)


@pytest.mark.slow(seconds=14)
def test_killed_process_continues_to_the_same_bytes(make_film: MakeFilm) -> None:
    film = make_film(shots=(9, 8, 10), height=96, width=128)
    whole, output = film.with_name("whole.mp4"), film.with_name("out.mp4")
    command = [sys.executable, "-m", "secondeye.cli", "convert", str(film), "--depth", "motion", "--output"]
    command = [sys.executable, "-c", "from secondeye.cli import main; main()", *command[3:]]
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(output)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    segment = film.parent / ".out.mp4.unfinished" / "segment_00000000_00000009.mp4"
    while not segment.exists() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not output.exists() and segment.exists()
    subprocess.run([*command, str(output)], check=True, capture_output=True)
    assert output.read_bytes() == whole.read_bytes()


def test_film_that_breaks_gives_its_good_part(make_film: MakeFilm) -> None:
    film = damage(make_film(shots=(60,), sound=True))
    made = convert(film, None, SETTINGS)
    output = film.with_name("film_LRF_Full_SBS.mp4")
    assert made.damage and 0 < made.frames < 60
    assert frame_seconds(output) == stamps_until_broken(film, made.frames)
    end = frame_seconds(output)[-1] + Fraction(1, 24)
    assert end - Fraction(1, 20) < sound_packets(output)[-1][0] < end


def stamps_until_broken(film: Path, frames: int) -> list[Fraction]:
    base = probe(film).time_base
    decoded = decode_film(film)
    return [next(decoded).pts * base for _ in range(frames)]


def test_plan_finds_shots_and_stamps(make_film: MakeFilm) -> None:
    film = make_film(shots=(12, 15))
    planned: list[int] = []
    plan = plan_shots(probe(film), cut_threshold=2.0, min_shot_frames=6, on_frame=lambda: planned.append(1))
    assert (
        plan.shots == [(0, 12), (12, 27)] and len(planned) == len(plan.timestamps) == 27 and not plan.damage
    )


def test_depth_of_a_shot_is_brought_to_zero_and_one(tmp_path: Path) -> None:
    import torch

    ramp = torch.linspace(-7, 13, 1000).view(1, 1, 20, 50)
    state = DepthState(1, 0, {})
    estimates = [
        DepthEstimate(ramp[..., :25], 0.2, state),
        DepthEstimate(ramp[..., 25:].repeat(3, 1, 1, 1), 1.0, state),
    ]
    depth = estimate_shot(
        lambda first: [], lambda windows, state: iter(estimates), tmp_path / "ramp.f32", save_every=240
    )
    assert depth.frames == 4 and depth.confidence == pytest.approx(0.8)
    together = torch.cat([depth.read(0, 3), depth.read(3, 4)])
    assert together.shape == (4, 1, 20, 25)
    assert float(together.min()) == 0 and float(together.max()) == 1
    inside = (together > 0) & (together < 1)
    assert 0.97 < inside.float().mean() < 0.99  # 1 % is cut off at either end

    ones = DepthEstimate(torch.ones(2, 1, 4, 5), 1.0, state)
    flat = estimate_shot(
        lambda first: [], lambda windows, state: iter([ones]), tmp_path / "flat.f32", save_every=240
    )
    assert ((flat.read(0, 2) - 0.5).abs() < 1 / 65535).all()  # in steps of 16 bits

    narrow = DepthEstimate(0.5 + 1e-5 * torch.rand(2, 1, 4, 5), 1.0, state)
    dark = estimate_shot(
        lambda first: [], lambda windows, state: iter([narrow]), tmp_path / "dark.f32", save_every=240
    )
    assert float(dark.read(0, 2).min()) == 0 and float(dark.read(0, 2).max()) == 1


def test_only_a_few_frames_are_alive_at_a_time(make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch) -> None:
    film = make_film(shots=(90,), sound=False)
    references: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    class Watched(ShotReader):
        def read(self, start: int, stop: int) -> Iterator[DecodedFrame]:
            for frame in super().read(start, stop):
                references.append(weakref.ref(frame.rgb))
                alive.append(sum(reference() is not None for reference in references))
                yield frame

    monkeypatch.setattr(shots, "ShotReader", Watched)
    monkeypatch.setattr(memory, "_MAX_WINDOW_FRAMES", 8)
    convert(film, None, SETTINGS)
    assert len(references) == 2 * 90 and max(alive) <= 3 * 8


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_warping_and_crops_run_beside_the_inpainter_but_a_gpu_warps_in_turn(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {"warped_window": set(), "pack_crop": set()}

    def watch(module: ModuleType, name: str) -> None:
        function = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *given: threads[name].add(threading.get_ident()) or function(*given)
        )

    watch(render, "warped_window"), watch(light, "pack_crop")
    on_cpu = segments.render
    monkeypatch.setattr(segments, "best_device", lambda: device)
    monkeypatch.setattr(
        segments, "render", lambda *given, **options: on_cpu(*given, **options | {"device": "cpu"})
    )
    film = write_moving_card(tmp_path / "film.mp4", 6, 192, 320, 24)
    options = ["--depth", "motion", "--inpainter", "light", "--strength-percent", "10"]  # opens holes
    monkeypatch.setattr(sys, "argv", ["secondeye", "convert", str(film), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    caller = threading.get_ident()
    assert threads["pack_crop"] and caller not in threads["pack_crop"]
    assert len(threads["warped_window"]) == 1 and (caller in threads["warped_window"]) == (device == "cuda")


PEAK = """
import re, sys
from pathlib import Path
from secondeye.conversion.convert import convert
from secondeye.conversion.settings import ConversionSettings
convert(Path(sys.argv[1]), None, ConversionSettings(3.0, 0.5, "motion", "fill", 16, "ultrafast", None))
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.slow(seconds=60)
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_film(make_film: MakeFilm) -> None:
    """Two and a half times the film, the same peak: its 8-bit frames alone are 158 MiB more.

    The shorter one is long enough to fill the windows in flight and the allocator's heap.
    """
    peaks = []
    for frames in (160, 400):
        film = make_film(f"{frames}.mp4", shots=(frames,), height=360, width=640, sound=False)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(film)], check=True, capture_output=True, text=True
        )
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 100


def test_output_is_mkv_if_mp4_cannot_hold_the_audio(tmp_path: Path) -> None:
    film = write_pcm_film(tmp_path / "film.mkv")
    convert(film, None, SETTINGS)
    assert (
        sound_packets(tmp_path / "film_LRF_Full_SBS.mkv")
        and not (tmp_path / "film_LRF_Full_SBS.mp4").exists()
    )


def test_sound_that_the_container_cannot_hold_is_stored_without_loss(tmp_path: Path) -> None:
    film, output, log = write_pcm_film(tmp_path / "film.mkv"), tmp_path / "out.mp4", list[str]()
    convert(film, output, SETTINGS, log=log.append)
    assert any("(pcm_s16le); it is stored as FLAC of up to 24 bits" in line for line in log[:2])
    assert probe(output).audio == ("flac",)
    assert np.array_equal(samples(output), samples(film)) and len(samples(film)) > 0


def samples(film: Path) -> np.ndarray:
    with av.open(str(film)) as container:
        arrays = [frame.to_ndarray().astype(np.int64).ravel() for frame in container.decode(audio=0)]
    return np.concatenate(arrays)


def test_real_sound_that_no_container_holds(footage: Path, tmp_path: Path) -> None:
    film = shutil.copy(footage / "odd_sound" / "dvd_lpcm_telecine.vob", tmp_path)
    made = convert(Path(film), None, SETTINGS, log=lambda line: None)
    assert made.output.suffix == ".mp4" and probe(made.output).audio == ("flac",)
    assert np.array_equal(samples(made.output), samples(Path(film)))
    (first, *_), (start, *_) = sound_times(made.output), sound_times(Path(film))
    film_start, made_start = (probe(path).start_seconds for path in (Path(film), made.output))
    assert abs((first - made_start) - (start - film_start)) < Fraction(1, 1000)


def sound_times(film: Path) -> list[Fraction]:
    with av.open(str(film)) as container:
        return [p.pts * p.time_base for p in container.demux(audio=0) if p.pts is not None]


def test_fonts_decide_the_container_before_the_work(tmp_path: Path, make_film: MakeFilm) -> None:
    source, film = make_film(sound=False), tmp_path / "styled.mkv"
    with av.open(str(source)) as given, av.open(str(film), "w") as target:
        video = target.add_stream_from_template(given.streams.video[0])
        target.add_attachment("sans.ttf", "font/ttf", b"a font")
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = video
                target.mux(packet)
    log: list[str] = []
    made = convert(film, None, SETTINGS, log=log.append)
    assert made.output.suffix == ".mkv"
    with av.open(str(made.output)) as container:
        assert [s.data for s in container.streams if s.type == "attachment"] == [b"a font"]
    convert(film, tmp_path / "out.mp4", SETTINGS, log=log.append)
    (line,) = [line for line in log if "attachment" in line]
    assert line.startswith("warning: .mp4 cannot hold") and log.index(line) < len(log) - 3


def write_pcm_film(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=24)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=48000)
        for image in moving_images(4, 48, 64):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 48000
        container.mux(audio.encode(frame))
    return path


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (".", "is a folder; give"),
        ("missing/out.mp4", "folder does not exist"),
        ("out.avi", "must end in .mp4"),
        ("film.mp4", "is the input film"),
        ("there.mp4", "already exists; .* --overwrite"),
    ],
)
def test_unusable_output_paths_are_one_line(make_film: MakeFilm, output: str, expected: str) -> None:
    film = make_film(shots=(3,))
    film.with_name("there.mp4").write_text("precious")
    before = film.read_bytes()
    with pytest.raises(UserError, match=expected) as caught:
        convert(film, film.parent / output, SETTINGS)
    assert "\n" not in str(caught.value)
    assert leftovers(film.parent) == {"film.mp4", "there.mp4"} and film.read_bytes() == before
    assert film.with_name("there.mp4").read_text() == "precious"


def test_overwrite_replaces_an_output(make_film: MakeFilm) -> None:
    film = make_film(shots=(3,))
    film.with_name("film_LRF_Full_SBS.mp4").write_text("old")
    convert(film, None, SETTINGS, overwrite=True)
    assert probe(film.with_name("film_LRF_Full_SBS.mp4")).frames == 3


@pytest.mark.parametrize(
    ("preview", "expected"),
    [
        ("film.mp4", "end in .png"),
        ("missing/s.png", "folder does not exist"),
        ("there.png", "already exists"),
        ("link.png", "is the input film"),
    ],
)
def test_wrong_preview_is_refused_before_the_work(make_film: MakeFilm, preview: str, expected: str) -> None:
    film = make_film(shots=(3,))
    film.with_name("there.png").write_text("precious")
    film.with_name("link.png").hardlink_to(film)
    before = film.read_bytes()
    with pytest.raises(UserError, match=expected):
        convert(film, None, SETTINGS, preview=film.parent / preview)
    assert leftovers(film.parent) == {"film.mp4", "there.png", "link.png"}
    assert film.read_bytes() == before and film.with_name("there.png").read_text() == "precious"


def test_second_run_does_not_disturb_the_first(make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch) -> None:
    film = make_film(shots=(9, 8))
    other, link = make_film("other.mp4", shots=(3,)), film.parent / "link"
    link.symlink_to(film.parent)
    film.with_name("soft.mp4").symlink_to(film.parent / "out.mp4")
    monkeypatch.chdir(film.parent)
    run, refused = ShotRenderer.run, []

    def interfere(self, shot, *rest):  # type: ignore[no-untyped-def]
        run(self, shot, *rest)
        monkeypatch.setattr(ShotRenderer, "run", run)
        for source in (film, other):
            for name in ("out.mp4", "../" + film.parent.name + "/out.mp4", link / "out.mp4", "soft.mp4"):
                with pytest.raises(UserError, match="another process is working in it"):
                    convert(source, Path(name), replace(SETTINGS, crf=20))
                refused.append(name)
        assert self.checkpoint.frames_done([shot]) == 9

    monkeypatch.setattr(ShotRenderer, "run", interfere)
    assert convert(film, film.with_name("out.mp4"), SETTINGS).frames == 17
    assert len(refused) == 8 and probe(film.with_name("out.mp4")).frames == 17


def test_full_disk_midway_is_one_line_and_the_run_continues(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    film = make_film(shots=(9, 8))
    with monkeypatch.context() as patch:
        patch.setattr(FilmWriter, "write", no_space)
        patch.setattr(sys, "argv", ["secondeye", "convert", str(film), "--depth", "motion"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"secondeye: {film.parent}: No space left on device; "
        "free some and run the same command again, to continue"
    )
    assert not film.with_name("film_LRF_Full_SBS.mp4").exists()
    convert(film, None, SETTINGS)


def no_space(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_one_line(make_film: MakeFilm, tmp_path: Path) -> None:
    film = make_film(shots=(3,))
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot be written to"):
        convert(film, closed / "out.mp4", SETTINGS)


def test_too_little_disk_is_expected_before_the_work(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(shots=(3,))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match="needs up to"):
        convert(film, None, SETTINGS)
    assert not film.with_name("film_LRF_Full_SBS.mp4").exists()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((11.0, 0.5, "auto", "fill", 16, "fast"), "--strength-percent must be 0 to 10"),
        ((float("nan"), 0.5, "auto", "fill", 16, "fast"), "--strength-percent"),
        ((3.0, 1.5, "auto", "fill", 16, "fast"), "--convergence"),
        (
            (3.0, 0.5, "magic", "fill", 16, "fast"),
            "--depth: 'magic' is not a depth estimator; choose motion, student, .*, or leave the option out",
        ),
        ((3.0, 0.5, "auto", "magic", 16, "fast"), "--inpainter must be one of fill, propagation, light"),
        ((3.0, 0.5, "auto", "fill", 52, "fast"), "--crf"),
        ((3.0, 0.5, "auto", "fill", 16, "warp9"), "--preset must be one of"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(
    values: tuple[float, float, str, str, int, str], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        ConversionSettings(*values, None)


def test_option_without_effect_is_a_warning(make_film: MakeFilm) -> None:
    said: list[str] = []
    convert(make_film(shots=(3,)), None, replace(SETTINGS, steps=4), log=said.append)
    assert [line for line in said if line.startswith("warning: --steps: no effect")]


def test_zero_strength_gives_both_eyes_the_same_image(make_film: MakeFilm) -> None:
    film = make_film(shots=(4,), sound=False)
    convert(film, None, ConversionSettings(0.0, 0.5, "motion", "fill", 0, "ultrafast", None))
    for frame in decode_film(film.with_name("film_LRF_Full_SBS.mp4")):
        assert np.abs(frame.rgb[:, :64].astype(int) - frame.rgb[:, 64:]).mean() < 1.5


@pytest.mark.slow(seconds=25)
@pytest.mark.parametrize("name", ["mono_bbb/bigbuckbunny.mp4", "mono_bikes/bikes.mp4"])
def test_real_films_keep_frames_stamps_and_sound(footage: Path, tmp_path: Path, name: str) -> None:
    film, output = footage / name, tmp_path / "out.mp4"
    convert(film, output, SETTINGS)
    info, made = probe(film), probe(output)
    assert (made.width, made.height) == (2 * info.width, info.height)
    assert frame_seconds(output) == frame_seconds(film)
    if info.audio:
        assert sound_packets(output) == sound_packets(film)


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [(".mp4", "Invalid data found when processing input"), (".mkv", "of the 5.0 seconds in its header")],
)
def test_film_cut_in_half_gives_its_good_part_and_says_so(
    make_film: MakeFilm, suffix: str, reason: str
) -> None:
    film = cut_in_half(make_film(shots=(120,), sound=False), suffix)
    made = convert(film, None, SETTINGS)
    assert f"ends early after {made.frames} frames (" in made.damage and f"{reason})" in made.damage
    assert 20 < made.frames < 100
    assert len(frame_seconds(film.with_name(f"{film.stem}_LRF_Full_SBS.mp4"))) == made.frames


def cut_in_half(film: Path, suffix: str) -> Path:
    """A download that broke off: the same film with its header in front, and half of its bytes."""
    whole = film.with_name(f"whole{suffix}")
    options = {"movflags": "faststart"} if suffix == ".mp4" else {}
    with av.open(str(film)) as source, av.open(str(whole), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    content = whole.read_bytes()
    half = film.with_name(f"half{suffix}")
    half.write_bytes(content[: len(content) // 2])
    return half


def test_avi_with_reordered_frames_keeps_every_frame(tmp_path: Path) -> None:
    film = tmp_path / "film.avi"  # its timestamps are those of decoding, in the wrong order
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"bf": "3", "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in moving_images(22, 48, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    made = convert(film, None, SETTINGS)
    assert made.frames == 22 and probe(tmp_path / "film_LRF_Full_SBS.mp4").frames == 22


@pytest.mark.parametrize("name", ["Alien: One.mp4", "-dash.mp4", "raw.h264", "late.ts"])
def test_odd_names_and_containers_keep_every_frame(make_film: MakeFilm, name: str) -> None:
    film = remux(make_film(shots=(12, 10), sound=False), name)
    made = convert(film, film.with_name("out.mp4"), SETTINGS)
    assert made.frames == 22 and len(frame_seconds(film.with_name("out.mp4"))) == 22


def remux(film: Path, name: str) -> Path:
    """The same packets in another container, which the suffix names; `late` ones begin at half a second."""
    target = film.with_name(name)
    with av.open(str(film)) as source, av.open(f"file:{target}", "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                if name.startswith("late"):
                    packet.pts += 6 * packet.duration
                    packet.dts += 6 * packet.duration
                packet.stream = stream
                container.mux(packet)
    return target


def test_film_that_begins_late_keeps_its_stamps(make_film: MakeFilm) -> None:
    film = remux(make_film(shots=(12,), sound=False), "late.ts")
    assert frame_seconds(film)[0] > 0
    convert(film, film.with_name("out.mp4"), SETTINGS)
    assert frame_seconds(film.with_name("out.mp4")) == frame_seconds(film)


@pytest.mark.slow(seconds=15)
def test_real_film_that_breaks_loses_one_picture(footage: Path, tmp_path: Path) -> None:
    made = convert(footage / "odd_decord" / "corrupted.mp4", tmp_path / "out.mp4", SETTINGS)
    assert (
        made.frames == 49
        and len(frame_seconds(tmp_path / "out.mp4")) == 49
        and "do not decode: 1" in made.damage
    )


def test_white_film_stays_white(tmp_path: Path) -> None:
    write_film(tmp_path / "white.mp4", iter(np.full((5, 48, 64, 3), 235, np.uint8)), Fraction(24))
    convert(tmp_path / "white.mp4", None, SETTINGS)
    for frame in decode_film(tmp_path / "white_LRF_Full_SBS.mp4"):
        assert np.abs(frame.rgb.astype(int) - 235).max() <= 3

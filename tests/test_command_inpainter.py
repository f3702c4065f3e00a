"""Programs of others as inpainters: what they get, what is taken back, and how they fail."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from test_cli import Run, one_line, secondeye

from secondeye.conversion.bundle import Bundle, read_bundle
from secondeye.conversion.provenance import read_record
from secondeye.conversion.settings import ConversionSettings
from secondeye.imaging.arrays import frames_to_uint8
from secondeye.inpaint import Inpainted, Warped, command, inpaint_shot, make_inpainter
from secondeye.inpaint.command import parse_command
from secondeye.params import load_params
from secondeye.stages.evaluate import command_methods
from secondeye.synthetic import two_planes
from secondeye.system.errors import UserError
from secondeye.system.program import GuardedFolder
from secondeye.warp import warp

__all__ = ["secondeye"]  # a fixture
pytestmark = pytest.mark.usefixtures("one_thread")
WHITE = """command:sh -c 'cp "$1"/* "$2"'"""  # returns the masks: holes become white


@pytest.fixture
def shot() -> Warped:
    left = two_planes(frames=5, height=24, width=64, seed=1)
    return Warped(left.left, *warp(left.left, left.disparity))


@pytest.mark.parametrize("in_bytes", [False, True])
def test_holes_are_taken_back_and_nothing_else(shot: Warped, in_bytes: bool) -> None:
    left = frames_to_uint8(shot.left) if in_bytes else shot.left
    given = Warped(left, *warp(left, two_planes(frames=5, height=24, width=64, seed=1).disparity))
    made = inpaint_shot(make_inpainter(WHITE, None, "cpu"), [given])
    made = made.permute(0, 3, 1, 2) / 255 if in_bytes else made
    before = given.frames.permute(0, 3, 1, 2) / 255 if in_bytes else given.frames
    hole = (given.coverage == 0).expand_as(made)
    assert hole.any() and (made[hole] == 1).all()
    assert torch.equal(made[~hole], before[~hole])


def test_the_program_gets_numbered_images_and_placeholders(shot: Warped, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    script = "cp -r $0 $1 $3 && mkdir $2/below && cp $0/* $2/below"
    text = f"command:sh -c '{script}' {{frames}} {{masks}} {{output}} {kept}"
    kept.mkdir()
    inpaint_shot(make_inpainter(text, None, "cpu"), [shot])
    names = [f"0000{number}.png" for number in range(5)]
    assert sorted(path.name for path in (kept / "frames").iterdir()) == names
    assert sorted(path.name for path in (kept / "masks").iterdir()) == names
    frame, mask = (
        cv2.imread(str(kept / kind / names[2]), cv2.IMREAD_UNCHANGED) for kind in ("frames", "masks")
    )
    assert np.array_equal(frame[..., ::-1], frames_to_uint8(shot.frames)[2].numpy())
    assert np.array_equal(mask, 255 * (shot.coverage[2, 0] <= 0.5).numpy().astype(np.uint8))


def test_windows_are_fixed_and_overlap_so_that_resuming_changes_nothing(
    shot: Warped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "WINDOW_FRAMES", 8)
    sizes: list[int] = []
    open_first: list[bool] = []
    run = command._run

    def counted(arguments: list[str], folder: GuardedFolder) -> None:
        sizes.append(len(list((folder.path / "frames").iterdir())))
        open_first.append(bool(cv2.imread(str(folder.path / "masks" / "00000.png")).any()))
        run(arguments, folder)

    monkeypatch.setattr(command, "_run", counted)
    film = Warped(*(torch.cat([plane] * 3) for plane in shot[:4]))  # type: ignore[arg-type]
    inpainter = make_inpainter(WHITE, None, "cpu")
    whole = list(inpainter([film]))
    assert [len(part.frames) for part in whole] == [8, 5, 2] and sizes == [8, 8, 8]
    assert open_first == [True, False, False], "windows begin with frames that are inpainted already"

    def joined(parts: list[Inpainted]) -> torch.Tensor:
        return torch.cat([part.frames for part in parts])

    assert torch.equal(
        joined(list(inpainter(film.take(slice(t, t + 4)) for t in range(0, 15, 4)))), joined(whole)
    )
    state = load(save(dict(whole[0].state)))
    assert torch.equal(joined(list(inpainter([film.take(slice(8, None))], state))), joined(whole[1:]))


def test_windows_without_holes_do_not_run_the_program(shot: Warped) -> None:
    whole = shot._replace(coverage=torch.ones_like(shot.coverage))
    assert torch.equal(inpaint_shot(make_inpainter("command:false", None, "cpu"), [whole]), shot.frames)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("sh -c 'echo first; echo no weights >&2; exit 3'", "sh ended with exit code 3: no weights"),
        (r"""sh -c 'printf "\033[31mno\033[2J weights\a\r\n\033[0m\n"; exit 3'""", "exit code 3: no weights"),
        ("sh -c 'printf %0100000d 7; exit 3'", f"sh ended with exit code 3: {200 * '0'}..."),
        ("false", "false ended with exit code 1: no output"),
        ("true", "true wrote 0 PNG images for 5 frames; it must write one for each"),
        ("sh -c 'cp $0/00000.png $2'", "sh wrote 1 PNG image for 5 frames"),
        ("sh -c 'for f in $0/*; do echo no > $2/${f##*/}; done'", "00000.png of sh cannot be read"),
        (
            "sh -c 'for f in $0/*; do cp SMALL $2/${f##*/}; done'",
            "00000.png of sh has 3x2 px; it must be a PNG image of 64x24",
        ),
        ("sh -c 'sleep 60 & sleep 60'", "sh was ended after 0.2 s with one window"),
    ],
)
def test_failures_are_one_line(
    shot: Warped, program: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "TIMEOUT_SECONDS", 0.2 if "sleep" in program else 60)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "temporary").mkdir()
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.zeros((2, 3, 3), np.uint8))
    inpainter = make_inpainter(f"command:{program.replace('SMALL', str(small))}", None, "cpu")
    with pytest.raises(UserError) as caught:
        inpaint_shot(inpainter, [shot])
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "temporary").iterdir()), "temporary folders are deleted"


def test_numbers_of_images_need_no_leading_zeros() -> None:
    frames, coverage = torch.zeros(12, 3, 4, 12), 1 - torch.eye(12)[:, None, None].expand(12, 1, 4, 12)
    film = Warped(frames, frames, coverage, frames[:, :1])  # a hole at column t of frame t
    script = 'n=0; for mask in "$1"/*; do cp "$mask" "$2/$n.png"; n=$((n + 1)); done'
    made = inpaint_shot(make_inpainter(f"command:sh -c '{script}'", None, "cpu"), [film])
    assert torch.equal(made[:, :1], 1 - coverage)


def test_another_program_of_the_same_name_is_another_key(tmp_path: Path) -> None:
    script, weights = tmp_path / "inpaint.sh", tmp_path / "weights"
    text = f"sh {script} --weights={weights} 'cp no file' {{frames}} {{masks}} {{output}}"

    def keys() -> tuple[object, tuple[str, ...]]:
        settings = ConversionSettings(3.0, 0.5, "motion", f"command:{text}", 16, "ultrafast", None)
        (method,) = command_methods(replace(load_params().evaluate, inpaint_commands={"mine": text}))
        return settings.describe()["program"], method.content

    found = [keys()]
    for path, content in ((script, "cp"), (weights, "1"), (script, "mv"), (weights, "2")):
        path.write_text(content)
        found.append(keys())
    assert len({key for key, _ in found}) == len({content for _, content in found}) == 5
    assert keys() == found[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no program"),
        ("no-such-program {frames} {masks} {output}", "there is no program no-such-program"),
        ("cp {frames}", "{masks}, {output} is missing"),
        ("cp 'open", "cannot be split into arguments"),
    ],
)
def test_commands_that_cannot_be_run_are_refused_before_the_work(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("{", r"\{")):
        parse_command(text)


def test_a_model_never_chooses_a_program(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="may not name a command"):
        Bundle("motion", WHITE)
    (tmp_path / "bundle.json").write_text('{"depth": "motion", "inpainter": "command:true"}')
    with pytest.raises(UserError, match=r"bundle.json: .*may not name a command to run") as caught:
        read_bundle(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_command_line_runs_it_and_records_no_arguments(
    secondeye: Run, make_film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(shots=(4,), sound=False)
    options = [
        "--depth",
        "motion",
        "--preset",
        "ultrafast",
        "--strength-percent",
        "10",
        "--convergence",
        "0.5",
    ]
    runs: list[list[str]] = []
    run = command._run
    monkeypatch.setattr(command, "_run", lambda *given: runs.append(given[0]) or run(*given))
    done = secondeye("convert", film, *options, "--inpainter", WHITE)
    assert done.returncode == 0, done.stderr
    assert len(runs) == 1 and runs[0][:2] == ["sh", "-c"]
    record = read_record(film.with_name("film_LRF_Full_SBS.mp4"))
    assert record is not None and record["inpainter"]["name"] == "command sh"
    assert "there is no program magic" in one_line(secondeye("convert", film, "--inpainter", "command:magic"))


def test_the_evaluation_has_a_row_for_each_command() -> None:
    given = load_params().evaluate
    assert command_methods(given) == []
    (method,) = command_methods(replace(given, inpaint_commands={"white": WHITE.removeprefix("command:")}))
    assert (method.name, method.kind, method.inpainter) == ("command: white", "inpainter", WHITE)
    with pytest.raises(UserError, match="there is no program"):
        command_methods(replace(given, inpaint_commands={"none": "no-such-program"}))

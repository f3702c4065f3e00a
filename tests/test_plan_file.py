"""The file of --plan: what it may contain, and that an edit converts only the shots that it changes."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_cli import Run, one_line, secondeye
from test_depth_maps import packets

from secondeye.conversion import checkpoint
from secondeye.conversion import convert as conversion
from secondeye.conversion.checkpoint import Checkpoint
from secondeye.conversion.comfort import StereoRequest
from secondeye.conversion.plan_file import (
    PlannedShot,
    ShotLine,
    read_plan_file,
    request_shots,
    write_plan_file,
)
from secondeye.conversion.provenance import read_record
from secondeye.conversion.segments import ShotRenderer
from secondeye.system.errors import UserError

__all__ = ["secondeye"]  # a fixture

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = ("--depth", "motion", "--inpainter", "fill", "--preset", "ultrafast")
AUTOMATIC = StereoRequest(None, None, is_exact=False)
SHOTS = [(0, 9), (9, 17), (17, 27)]


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the first frame of every shot that is rendered."""
    starts: list[int] = []
    run = ShotRenderer.run

    def watched(self, shot, *rest):  # type: ignore[no-untyped-def]
        starts.append(shot[0])
        run(self, shot, *rest)

    monkeypatch.setattr(ShotRenderer, "run", watched)
    return starts


@pytest.fixture
def film(make_film: Callable[..., Path]) -> Path:
    return make_film(shots=(9, 8, 10))


def edit(plan: Path, start: int, **values: float | str) -> None:
    """Replace values of the shot that begins at a frame."""
    lines = plan.read_text().splitlines(keepends=True)
    (number,) = (k for k, line in enumerate(lines) if f"start: {start}," in line)
    for name, value in values.items():
        lines[number] = re.sub(rf"{name}: [\w.]+", f"{name}: {value}", lines[number])
    plan.write_text("".join(lines))


@pytest.mark.slow(seconds=8)
def test_an_edit_converts_only_the_shots_that_it_changes(
    film: Path, rendered: list[int], secondeye: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, output, plain = (film.with_name(name) for name in ("shots.yaml", "out.mp4", "plain.mp4"))
    command = ("convert", film, *OPTIONS, "--plan", plan)
    first = secondeye(*command, "--output", output, "--preview", film.with_name("preview.png"))
    assert first.returncode == 0 and rendered == [0, 9, 17]
    assert "kept for edits" in first.stdout
    shots = read_plan_file(plan).shots
    assert [(shot.start, shot.stop) for shot in shots] == SHOTS
    assert all(shot.strength_percent and shot.convergence for shot in shots)
    secondeye("convert", film, *OPTIONS, "--output", plain)
    whole = plain.read_bytes()
    assert output.read_bytes() == whole and not film.with_name(".plain.mp4.unfinished").exists()

    def again(*options: object) -> list[int]:
        rendered.clear()
        done = secondeye(*command, "--output", output, "--overwrite", *options)
        assert done.returncode == 0, done.stderr
        return rendered

    assert again() == [] and packets(output) == packets(plain)
    settings = read_record(output)["settings"]  # type: ignore[index]
    assert (settings["strength_percent"], settings["convergence"]) == ("plan", "plan")
    automatic = plan.read_text()
    edit(plan, 9, strength_percent=7.5, convergence=0.9)
    assert again("--preview", film.with_name("again.png")) == [9]
    edited = packets(output)
    assert edited[:9] == packets(plain)[:9] and edited[17:] == packets(plain)[17:]
    assert edited[9:17] != packets(plain)[9:17]
    assert film.with_name("again.png").exists()
    # An interrupted edit continues to the bytes of a conversion with the edited plan from the start.
    made = output.read_bytes()
    plan.write_text(automatic)
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_mux", interrupt)
        assert secondeye(*command, "--output", output, "--overwrite").returncode == 130
    edit(plan, 9, convergence=0.1)
    assert again() == [9]
    fresh = film.with_name("fresh.mp4")
    assert secondeye(*command, "--output", fresh).returncode == 0
    assert output.read_bytes() == fresh.read_bytes() not in (whole, made)
    # Borders are a property of the shot.
    edit(plan, 9, holds_borders="false")
    assert again() == [9]
    # Options win over the plan and need no other checkpoint; shots that have the values are kept.
    values = ("--strength-percent", 3, "--convergence", 0.5)
    assert again(*values) == [0, 9, 17] and again(*values) == []
    assert again() == [0, 9, 17]
    # Without the plan, the shot is as it was chosen, and nothing stays.
    rendered.clear()
    assert secondeye("convert", film, *OPTIONS, "--output", output, "--overwrite").returncode == 0
    assert rendered == [9] and output.read_bytes() == whole
    assert not film.with_name(".out.mp4.unfinished").exists()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_options_win_over_the_plan(film: Path, secondeye: Run) -> None:
    plan, output = film.with_name("shots.yaml"), film.with_name("out.mp4")
    plan.write_text(
        "film: other.mp4\ndepth: light\n"
        "shots: [{start: 9, strength_percent: 2.5}, {start: 17, strength_percent: auto, convergence: 0.1}]\n"
    )
    written = plan.read_text()
    command = ("convert", film, *OPTIONS, "--plan", plan, "--output", output, "--convergence", 0.8)
    done = secondeye(*command)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("shot ")]
    assert [line.rpartition("convergence ")[2] for line in lines] == ["0.80"] * 3
    assert "strength 2.50 %" in lines[1] and "strength 2.50 %" not in lines[0] + lines[2]
    assert f"warning: {plan}: overruled by --convergence\n" in done.stdout
    other = f'{plan}: was written for film "other.mp4", not "film.mp4" and depth "light", not "motion"'
    assert f"warning: {other}\n" in done.stdout
    assert "what it leaves out: strength automatic, convergence 0.8" in done.stdout
    assert plan.read_text() == written, "a plan that exists is only read"
    settings = read_record(output)["settings"]  # type: ignore[index]
    assert (settings["strength_percent"], settings["convergence"]) == ("plan", 0.8)


def test_a_plan_that_appears_meanwhile_is_not_overwritten(
    film: Path, secondeye: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, run = film.with_name("shots.yaml"), ShotRenderer.run

    def interfere(*given):  # type: ignore[no-untyped-def]
        plan.write_text("precious")
        run(*given)

    monkeypatch.setattr(ShotRenderer, "run", interfere)
    done = secondeye("convert", film, *OPTIONS, "--plan", plan)
    assert done.returncode == 0 and f"{plan}: was written by another process and stays" in done.stdout
    assert plan.read_text() == "precious"


def test_a_run_killed_between_two_films_is_completed_with_the_edited_plan(
    film: Path, rendered: list[int], secondeye: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, right = film.with_name("shots.yaml"), film.with_name("out_right.mp4")
    output = ("--output", film.with_name("out.mp4"), "--layout", "left-right-files")
    command = ("convert", film, *OPTIONS, "--plan", plan, *output)
    publish = checkpoint.publish
    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint, "publish", lambda part, path: interrupt() if path == right else publish(part, path)
        )
        assert secondeye(*command).returncode == 130 and plan.exists() and not right.exists()
    edit(plan, 9, convergence=0.1)
    rendered.clear()
    assert secondeye(*command).returncode == 0 and right.exists()
    assert rendered == [9]


@pytest.mark.parametrize("deletions", range(5))
def test_interrupted_forgetting_leaves_what_can_be_resumed(
    tmp_path: Path, deletions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Checkpoint(tmp_path)
    kept.save_shot(9, {})
    state = {"k": torch.zeros(1)}
    for start, stop in ((0, 9), (9, 12), (12, 15), (17, 20)):
        kept.part(start).touch()
        kept.finish_segment(start, stop, state if start in (9, 12) else None)
    assert kept.resume(9, 17) == (15, state) and kept.frames_done(SHOTS) == 9 + 6 + 3
    left, unlink = [deletions], Path.unlink

    def delete(path: Path, missing_ok: bool = False) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", delete)
        try:
            kept.forget_shots([(9, 17)])
        except KeyboardInterrupt:
            assert deletions < 4
    assert kept.resume(9, 17) == ((9, None) if deletions else (15, state))
    assert (kept.load_shot(9) is None) == (deletions >= 4)
    assert kept.frames_done([SHOTS[0], SHOTS[2]]) == 9 + 3
    kept.forget_shots([(9, 17)])
    assert len(list(tmp_path.iterdir())) == 2


def test_thousands_of_shots_take_one_look_at_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, looks, listed = Checkpoint(tmp_path), list[Path](), Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: looks.append(path) or listed(path))
    shots = [(start, start + 5) for start in range(0, 10000, 5)]
    assert kept.frames_done(shots) == 0 and len(looks) == 1


def test_a_shot_without_its_state_starts_over(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path)
    kept.part(9).touch()
    kept.finish_segment(9, 12, {"k": torch.zeros(1)})
    next(tmp_path.glob("inpaint_*")).unlink()
    assert kept.resume(9, 17) == (9, None) and kept.frames_done(SHOTS) == 0


def test_both_options_win_over_the_borders_of_the_plan() -> None:
    planned = [PlannedShot(2, 9, 17, 1.0, None, True), PlannedShot(3, 17, 27, None, None, False)]
    path, given = Path("shots.yaml"), StereoRequest(3.0, 0.5, is_exact=False, holds_borders=False)
    assert request_shots(path, planned, SHOTS, given, ("strength_percent", "convergence")) == [given] * 3
    assert request_shots(path, planned, SHOTS, given) == [
        given,
        StereoRequest(1.0, 0.5, is_exact=True, holds_borders=True),
        given,
    ]
    one = request_shots(path, planned, SHOTS, AUTOMATIC._replace(convergence=0.8), ("convergence",))
    assert [request.holds_borders for request in one] == [True, True, False]


def test_a_plan_of_another_film_is_one_line_before_the_work(
    film: Path, rendered: list[int], secondeye: Run
) -> None:
    plan = film.with_name("shots.yaml")
    plan.write_text("shots:\n- {start: 0}\n- {start: 10}\n")
    line = one_line(secondeye("convert", film, *OPTIONS, "--plan", plan))
    assert f"{plan}, line 3: no shot starts at frame 10; the nearest one starts at 9" in line
    assert rendered == []
    assert "must end in .yaml" in one_line(secondeye("convert", film, "--plan", film))
    assert "is a folder" in one_line(secondeye("convert", film, "--plan", film.parent))


def test_a_written_plan_of_thousands_of_shots_reads_back(tmp_path: Path) -> None:
    plan = tmp_path / "shots.yaml"
    lines = [
        ShotLine(10 * k, 10 * k + 10, 0.417 * k, 1.75, k / 2000, k % 2 == 0, 0.431, 0.55) for k in range(2000)
    ]
    write_plan_file(plan, Path('a "film": #1.mp4'), "hf:ORG/NAME", lines)
    name, depth, shots = read_plan_file(plan)
    assert (name, depth) == ('a "film": #1.mp4', "hf:ORG/NAME")
    assert [shot[1:] for shot in shots] == [(*line[:2], *line[3:6]) for line in lines]
    requests = request_shots(plan, shots, [(line.start, line.stop) for line in lines], AUTOMATIC)
    assert requests == [StereoRequest(1.75, line.convergence, True, line.holds_borders) for line in lines]


@pytest.mark.parametrize("value", ["", "null", "auto"])
def test_an_empty_value_is_left_out(tmp_path: Path, value: str) -> None:
    plan = tmp_path / "shots.yaml"
    plan.write_text(f"shots:\n- start: 3\n  strength_percent: {value}\n  holds_borders: {value}\n")
    assert read_plan_file(plan).shots == [PlannedShot(2, 3, None, None, None, None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping with the key `shots`"),
        ("- 1", "must be a mapping with the key `shots`"),
        ("film: a.mp4", "`shots` must be a list of shots"),
        ("shots: 3", "`shots` must be a list of shots"),
        ("shots:\n- {start: 0", "line 3: not YAML"),
        ("shots:\n- {start: 0, start: 1}", "line 2: `start` is given twice"),
        ("shots:\n- {start: 0}\n- {start: 9}\n- {start: 0}", "line 4: start 0 is also in line 2; keep one"),
        ("shots:\n- {stop: 9}", "line 2: the shot has no `start`"),
        ("shots:\n- 7", "line 2: a shot must be a mapping"),
        ("shots:\n- start: 0\n  strenght: 2", "line 3: unknown key `strenght`; a shot may have start, stop"),
        ("shots: []\ncuts: []", "line 2: unknown key `cuts`; the plan may have film, depth, shots"),
        ("shots:\n- start: 0\n  strength_percent: 11", "line 3: `strength_percent` must be .* from 0 to 10"),
        ("shots:\n- {start: 0, strength_percent: true}", "`strength_percent` must be .*, got 'true'"),
        ("shots:\n- {start: 0, strength_percent: '2'}", "`strength_percent` must be a number .*, got '2'"),
        ("shots:\n- {start: 0, convergence: .nan}", "`convergence` must be a number from 0 to 1, got '.nan'"),
        ("shots:\n- {start: 0, convergence: -0.1}", "`convergence` must be a number from 0 to 1"),
        ("shots:\n- {start: 0, convergence: [0.5]}", "`convergence` must be .*, got a list or mapping"),
        ("shots:\n- {start: 0.0}", "`start` must be a whole number, got '0.0'"),
        ("shots:\n- {start: " + 5000 * "9" + "}", "`start` must be a whole number, got '9{40}\\.\\.\\.'$"),
        ("shots:\n- {start: 0, [1, 2]: 3}", "line 2: a key is a list or mapping; a shot may have start"),
        ("shots:\n- {start: 0, holds_borders: 1}", "`holds_borders` must be true or false, got '1'"),
        ("film: [a]\nshots: []", "line 1: `film` must be a name, got a list or mapping"),
        ("shots:\n- {start: -1}", "`start` must be a whole number, got '-1'"),
        ("shots:\n- {start: !!python/object:os.system 0}", "`start` must be a whole number"),
        ("shots: \x00", "not YAML"),
    ],
)
def test_what_a_plan_may_not_contain_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    plan = tmp_path / "shots.yaml"
    plan.write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        read_plan_file(plan)
    assert str(raised.value).startswith(str(plan)) and len(str(raised.value).splitlines()) == 1


def test_cuts_cannot_be_moved() -> None:
    path = Path("shots.yaml")
    with pytest.raises(UserError, match="line 4: the shot from frame 9 ends before frame 17, not 16"):
        request_shots(path, [PlannedShot(4, 9, 16, None, None)], SHOTS, AUTOMATIC)
    requests = request_shots(path, [PlannedShot(4, 9, 17, None, 0.5)], SHOTS, AUTOMATIC)
    assert requests == [AUTOMATIC, StereoRequest(None, 0.5, is_exact=False), AUTOMATIC]

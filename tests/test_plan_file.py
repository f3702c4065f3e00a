"""The file of --plan: what it may contain, and that an edit converts only the shots that it changes."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from test_cli import Run, one_line, secondeye
from test_depth_maps import packets

from secondeye.conversion import convert as conversion
from secondeye.conversion.comfort import StereoRequest
from secondeye.conversion.plan_file import (
    PlannedShot,
    ShotLine,
    read_plan_file,
    request_shots,
    write_plan_file,
)
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


def edit(plan: Path, start: int, **values: float) -> None:
    """Replace values of the shot that begins at a frame."""
    lines = plan.read_text().splitlines(keepends=True)
    (number,) = (k for k, line in enumerate(lines) if f"start: {start}," in line)
    for name, value in values.items():
        lines[number] = re.sub(rf"{name}: [\d.]+", f"{name}: {value}", lines[number])
    plan.write_text("".join(lines))


def test_an_edit_converts_only_the_shots_that_it_changes(
    film: Path, rendered: list[int], secondeye: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, output, plain = (film.with_name(name) for name in ("shots.yaml", "out.mp4", "plain.mp4"))
    command = ("convert", film, *OPTIONS, "--plan", plan)
    first = secondeye(*command, "--output", output, "--preview", film.with_name("preview.png"))
    assert first.returncode == 0 and rendered == [0, 9, 17]
    assert "kept for edits" in first.stdout
    shots = read_plan_file(plan)
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

    assert again() == [] and output.read_bytes() == whole
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
    # Without the plan, the shot is as it was chosen, and nothing stays.
    rendered.clear()
    assert secondeye("convert", film, *OPTIONS, "--output", output, "--overwrite").returncode == 0
    assert rendered == [9] and output.read_bytes() == whole
    assert not film.with_name(".out.mp4.unfinished").exists()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_options_are_for_what_the_plan_leaves_out(film: Path, secondeye: Run) -> None:
    plan = film.with_name("shots.yaml")
    plan.write_text("shots: [{start: 9, strength_percent: 2.5}, {start: 17, convergence: 0.1}]\n")
    written = plan.read_text()
    options = ("--strength-percent", 4, "--convergence", 0.8)
    done = secondeye("convert", film, *OPTIONS, "--plan", plan, *options)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("shot ")]
    assert [line.rpartition("convergence ")[2] for line in lines] == ["0.80", "0.80", "0.10"]
    assert "strength 2.50 %" in lines[1] and "strength 2.50 %" not in lines[0] + lines[2]
    assert plan.read_text() == written, "a plan that exists is only read"


def test_a_plan_of_another_film_is_one_line_before_the_work(
    film: Path, rendered: list[int], secondeye: Run
) -> None:
    plan = film.with_name("shots.yaml")
    plan.write_text("shots:\n- {start: 0}\n- {start: 10}\n")
    line = one_line(secondeye("convert", film, *OPTIONS, "--plan", plan))
    assert f"{plan}, line 3: no shot starts at frame 10; the nearest one starts at 9" in line
    assert rendered == []
    assert "must end in .yaml" in one_line(secondeye("convert", film, "--plan", film))


def test_a_written_plan_of_thousands_of_shots_reads_back(tmp_path: Path) -> None:
    plan = tmp_path / "shots.yaml"
    lines = [ShotLine(10 * k, 10 * k + 10, 0.417 * k, 1.75, k / 2000, 0.431, 0.55) for k in range(2000)]
    write_plan_file(plan, Path('a "film": #1.mp4'), "hf:ORG/NAME", lines)
    shots = read_plan_file(plan)
    assert [shot[1:] for shot in shots] == [
        (line.start, line.stop, line.strength_percent, line.convergence) for line in lines
    ]
    requests = request_shots(plan, shots, [(line.start, line.stop) for line in lines], AUTOMATIC)
    assert requests == [StereoRequest(1.75, line.convergence, is_exact=True) for line in lines]


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

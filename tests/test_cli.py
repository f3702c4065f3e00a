"""Command line: help, exit codes, and one-line user errors without traceback."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import damage

from secondeye.cli import main
from secondeye.system import process

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def secondeye(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command line in this process, which saves seconds of imports."""
    monkeypatch.setattr(process, "die_with_parent", lambda parent: None)

    def run(*arguments: object) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["secondeye", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        code, printed = end.value.code, capsys.readouterr()
        message = f"{code}\n" if isinstance(code, str) else ""  # Python prints it and exits with 1
        return CompletedProcess(
            sys.argv, 1 if message else int(code or 0), printed.out, printed.err + message
        )

    return run


def one_line(done: CompletedProcess[str]) -> str:
    """Return the error line, and check that there is exactly one and no traceback."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("secondeye:")]
    assert done.returncode != 0 and len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


def test_a_user_error_ends_the_process_with_one_line() -> None:
    command = [sys.executable, "-m", "secondeye", "convert", "missing.mp4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines() == [one_line(done)] and "file does not exist" in one_line(done)


def test_convert_rejects_what_is_not_a_film(secondeye: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a film")
    assert "notes.txt" in one_line(secondeye("convert", tmp_path / "notes.txt"))
    assert "is a folder" in one_line(secondeye("convert", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_damaged_film_exits_with_three(secondeye: Run, make_film: Callable[..., Path]) -> None:
    film = damage(make_film(shots=(40,), height=32, width=48))
    done = secondeye("convert", film, "--depth", "motion", "--preset", "ultrafast")
    assert done.returncode == 3, done.stderr
    assert "frames that do not decode: 1, skipped" in one_line(done)
    assert film.with_name("film_LRF_Full_SBS.mp4").exists()


def test_stage_rejects_invalid_arguments(
    secondeye: Run, tmp_path: Path, in_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "stage must be one of split" in one_line(secondeye("stage", "warp", "a", "b"))
    assert "takes 2 folders (data, reports), got 1" in one_line(secondeye("stage", "validate", "a"))
    monkeypatch.chdir(tmp_path)
    assert "params.yaml" in one_line(secondeye("stage", "split", "a"))


def test_sample_refuses_a_folder_with_other_films(secondeye: Run, tmp_path: Path) -> None:
    (tmp_path / "holiday_sbs.mp4").write_bytes(b"precious")
    assert "holiday_sbs.mp4 is not part of the sample" in one_line(secondeye("data", "sample", tmp_path))
    (tmp_path / "holiday_sbs.mp4").unlink()
    (tmp_path / "sources.csv").write_text("film,packing,split,licence\nmine.mp4,sbs,,\n")
    assert "mine.mp4 is not part of the sample" in one_line(secondeye("data", "sample", tmp_path))
    assert "mine.mp4" in (tmp_path / "sources.csv").read_text()


@pytest.mark.parametrize(
    ("group", "commands"),
    [
        ((), ("convert", "depth", "score", "lineage", "doctor", "data", "model", "report", "stage")),
        (("data",), ("sample", "export", "left", "external", "drift", "clean", "preset")),
        (("report",), ("figures", "forced-choice", "preferences")),
        (
            ("model",),
            ("publish", "record", "init", "gate", "promote", "rollback", "veto", "history", "memory"),
        ),
    ],
)
def test_help_lists_the_commands_of_each_group(
    secondeye: Run, group: tuple[str, ...], commands: tuple[str, ...]
) -> None:
    done = secondeye(*group, "--help")
    listed = [line.split()[1] for line in done.stdout.splitlines() if re.match(r"│ [a-z]", line)]
    assert done.returncode == 0 and listed == list(commands)


def test_version(secondeye: Run) -> None:
    assert secondeye("--version").stdout.startswith("secondeye 0.")


def test_doctor_prints_one_line_per_part(secondeye: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    done = secondeye("doctor")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("  ")] == [
        "  1280x720",
        "  1920x1080",
        "  2560x1440",
        "  3840x2160",
    ] * 2
    parts = [line.split(":")[0] for line in lines if not line.startswith("  ")]
    assert parts[:-2] == [
        "CPU",
        "memory",
        "disk here",
        "GPU",
        "Triton",
        "encoders",
        "Hugging Face",
        "depth weights",
    ]
    assert parts[-2].startswith("fill and light in ") and parts[-1].startswith("diffusion in ")
    assert "here they use triton" in done.stdout
    assert "HF_HUB_OFFLINE" in done.stdout

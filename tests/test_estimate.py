"""What is told before the long work starts."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from secondeye.execution.estimate import announce, duration, estimate
from secondeye.system.errors import UserError

GIB = 2**30
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A disk with 100 GiB free, or what a test says; no DVC."""
    monkeypatch.chdir(tmp_path)
    free = [100.0 * GIB]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, int(free[0])))
    monkeypatch.setenv("SECONDEYE_WORKERS", "2")
    return free


def test_twice_the_pixels_need_twice_as_much_and_twice_the_cores_half_the_time() -> None:
    one, two, four = estimate(10**9, 1), estimate(2 * 10**9, 1), estimate(10**9, 4)
    assert two.bytes == {stage: 2 * size for stage, size in one.bytes.items()} and four.bytes == one.bytes
    assert four.seconds == pytest.approx({stage: s / 4 for stage, s in one.seconds.items()})
    assert set(one.bytes) < set(one.seconds)


def test_one_line_says_what_is_needed(
    tmp_path: Path, room: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    announce(tmp_path, 1000, 256, 448)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("dataset: 1,000 frames need about ") and line.endswith(" on 2 cores")
    assert all(stage in line for stage in ("split", "match", "splat"))
    announce(tmp_path, 1000, 256, 448, known_by="by guess")
    assert "1,000 frames (by guess) need about " in capsys.readouterr().out


def test_too_small_a_disk_is_refused_and_what_is_there_counts(tmp_path: Path, room: list[float]) -> None:
    needs = estimate(10**9, 1).bytes
    room[0] = sum(needs.values()) - 1
    (tmp_path / "split").mkdir()
    with pytest.raises(UserError, match=r"frames need about .*free some, take fewer films"):
        announce(tmp_path / "split", 10**5, 100, 100)
    with (tmp_path / "split" / "a.mkv").open("wb") as file:
        file.truncate(2)
    announce(tmp_path / "split", 10**5, 100, 100)


def test_the_copy_in_dvcs_cache_counts(
    tmp_path: Path, room: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[cache]\ntype = copy\n")
    (tmp_path / "split").mkdir()
    room[0] = 2 * sum(estimate(10**9, 1).bytes.values()) + 1
    announce(tmp_path / "split", 10**5, 100, 100)
    assert "), and as much for DVC's cache; from nothing, " in capsys.readouterr().out
    room[0] -= 2
    with pytest.raises(
        UserError, match=r"as much for DVC's cache, but the disk of .*split has .*; free some"
    ):
        announce(tmp_path / "split", 10**5, 100, 100)


def test_nothing_is_said_where_all_is_there(
    tmp_path: Path, room: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for stage, size in estimate(10**6, 1).bytes.items():
        (tmp_path / stage).mkdir()
        with (tmp_path / stage / "a.mkv").open("wb") as file:
            file.truncate(int(size) + 1)
    room[0] = 0
    announce(tmp_path / "split", 100, 100, 100)
    assert not capsys.readouterr().out


def test_times_are_readable() -> None:
    told = [duration(seconds) for seconds in (0.4, 119, 7199, 36000, 10 * 86400)]
    assert told == ["0 s", "119 s", "120 min", "10 h", "10 days"]

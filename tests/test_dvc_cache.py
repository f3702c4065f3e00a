"""How often what a stage writes lies on disks: DVC's cache may take a copy of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from secondeye.execution import dvc_cache
from secondeye.execution.dvc_cache import places_of


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stage's folder, with the project as the working directory."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "data" / "match"
    made.mkdir(parents=True)
    return made


def configure(lines: str) -> None:
    Path(".dvc").mkdir(exist_ok=True)
    Path(".dvc", "config").write_text(f"[cache]\n{lines}\n")


def answer(monkeypatch: pytest.MonkeyPatch, name: str, does: Callable[[Path, Path], bool]) -> None:
    monkeypatch.setattr(dvc_cache, name, does)


def test_without_dvc_it_lies_there_once(out: Path) -> None:
    assert places_of(out) == [(out, 1)]


@pytest.mark.parametrize(
    ("types", "times"), [("copy", 2), ("hardlink,copy", 1), ("symlink", 1), ("copy,symlink", 2)]
)
def test_the_cache_copies_or_links_as_it_is_told(out: Path, types: str, times: int) -> None:
    configure(f"type = {types}")
    assert places_of(out) == [(out, times)]


@pytest.mark.parametrize("lines", ["", "type = 'reflink,copy'"])
def test_a_disk_that_shares_blocks_needs_no_second_room(
    out: Path, monkeypatch: pytest.MonkeyPatch, lines: str
) -> None:
    configure(lines)
    for shares in (True, False):
        answer(monkeypatch, "_share_blocks", lambda one, other, shares=shares: shares)
        assert places_of(out) == [(out, 1 if shares else 2)]


def test_trying_whether_blocks_are_shared_leaves_nothing_behind(out: Path, tmp_path: Path) -> None:
    configure("type = 'reflink,copy'")
    before = sorted(tmp_path.rglob("*"))
    assert places_of(out) in ([(out, 1)], [(out, 2)])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cache_on_another_disk_needs_room_there(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(f"dir = {tmp_path / 'elsewhere' / 'cache'}\ntype = 'hardlink,copy'")
    (tmp_path / "elsewhere").mkdir()
    answer(monkeypatch, "_on_one_disk", lambda one, other: False)
    assert places_of(out) == [(out, 1), (tmp_path / "elsewhere", 1)]

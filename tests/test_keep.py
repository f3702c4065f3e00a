"""Finished work stays, half-finished work does not, and nobody notices that a run was killed."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from secondeye import keep
from secondeye.keep import BadClip, Done, Job, finish_jobs, make_key
from secondeye.params import Splat
from secondeye.refusal import Refusal
from secondeye.rows import Bad
from secondeye.tables import read_table

BUILT: list[str] = []


@dataclass(frozen=True)
class Row:
    id: str
    key: str
    size: int


def work(out: Path, name: str, key: str, content: str) -> tuple[Row, list[Path]]:
    BUILT.append(name)
    if content == "bad":
        raise BadClip("no good", f"{name} is bad")
    if content == "crash":
        (out / f"{name}.half").write_text("half")
        raise RuntimeError("killed")
    path = out / f"{name}.txt"
    path.write_text(content)
    return Row(name, key, len(content)), [path]


def finish(out: Path, jobs: list[Job], max_bad_fraction: float = 1.0) -> Done[Row]:
    BUILT.clear()
    out.mkdir(exist_ok=True)
    return finish_jobs(out, jobs, work, Row, label="test", max_bad_fraction=max_bad_fraction)


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")


def jobs(**contents: str) -> list[Job]:
    return [Job(name, f"key of {content}", (content,)) for name, content in contents.items()]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_what_is_missing_is_built(tmp_path: Path) -> None:
    first = finish(tmp_path / "o", jobs(a="1", b="22"))
    assert first.built == 2 and [row.size for row in first.rows] == [1, 2]
    assert finish(tmp_path / "o", jobs(a="1", b="22")) == Done(first.rows, [], 0) and not BUILT
    finish(tmp_path / "o", jobs(a="1", b="22", c="333"))
    assert BUILT == ["c"]
    finish(tmp_path / "o", jobs(a="1", b="other", c="333"))
    assert BUILT == ["b"]


def test_missing_file_is_built_again(tmp_path: Path) -> None:
    finish(tmp_path / "o", jobs(a="1", b="22"))
    (tmp_path / "o" / "b.txt").unlink()
    finish(tmp_path / "o", jobs(a="1", b="22"))
    assert BUILT == ["b"]


def test_what_belongs_to_nothing_is_pruned(tmp_path: Path) -> None:
    finish(tmp_path / "o", jobs(a="1", b="22"))
    (tmp_path / "o" / "stranger.mkv").write_text("x")
    finish(tmp_path / "o", jobs(a="1"))
    assert set(content(tmp_path / "o")) == {"a.json", "a.txt", "bad.parquet"}


def test_killed_run_continues_to_the_same_bytes(tmp_path: Path) -> None:
    finish(tmp_path / "undisturbed", jobs(a="1", b="22", c="333"))
    with pytest.raises(RuntimeError):
        finish(tmp_path / "o", jobs(a="1", b="crash", c="333"))
    finish(tmp_path / "o", jobs(a="1", b="22", c="333"))
    assert BUILT == ["b", "c"]
    assert content(tmp_path / "o") == content(tmp_path / "undisturbed")


def test_changing_back_after_a_kill_does_not_trust_half_of_the_new_files(tmp_path: Path) -> None:
    finish(tmp_path / "o", jobs(a="old"))
    with pytest.raises(RuntimeError):
        finish(tmp_path / "o", jobs(a="crash"))
    finish(tmp_path / "o", jobs(a="old"))
    assert BUILT == ["a"]


def test_bad_clips_are_told_and_too_many_stop_the_stage(tmp_path: Path) -> None:
    done = finish(tmp_path / "o", jobs(a="1", b="bad"))
    assert done.bad == [Bad("b", "no good", "b is bad")] == read_table(tmp_path / "o" / "bad.parquet", Bad)
    assert finish(tmp_path / "o", jobs(a="1", b="bad")).built == 0
    with pytest.raises(Refusal, match=r"1 of 2 clips are bad.*max_bad_fraction.*no good"):
        finish(tmp_path / "o", jobs(a="1", b="bad"), max_bad_fraction=0.4)


def test_key_follows_inputs_params_columns_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    splat = Splat(weight_exponent_per_px=0.5)
    key = make_key("splat", Row, [splat], ["input"])
    assert key == make_key("splat", Row, [Splat(weight_exponent_per_px=0.5)], ["input"])
    assert key != make_key("splat", Row, [Splat(weight_exponent_per_px=0.6)], ["input"])
    assert key != make_key("splat", Row, [splat], ["other input"])
    assert key != make_key("splat", Bad, [splat], ["input"])
    assert key != make_key("shift", Row, [splat], ["input"])
    monkeypatch.setattr(keep, "version", lambda name: "0")
    assert key != make_key("splat", Row, [splat], ["input"])

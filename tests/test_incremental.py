"""Finished items are kept, half-finished ones are not, and a killed run leaves no trace."""

import hashlib
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from secondeye.dataset.checksums import FileRecord, list_entries, read_entry, verify_checksum
from secondeye.dataset.schema import FailedItem
from secondeye.dataset.tables import read_table
from secondeye.execution import code_hash
from secondeye.execution.incremental import BadClip, BuildResult, Job, build_missing, make_key
from secondeye.params import SplatParams
from secondeye.system.errors import UserError

BUILT: list[str] = []


@dataclass(frozen=True)
class Row:
    id: str
    key: str
    size: int


def work(out: Path, name: str, key: str, content: str) -> tuple[Row, list[Path]]:
    BUILT.append(name[0])
    if content == "bad":
        raise BadClip("no good", f"{name[0]} is bad")
    if content == "poison":
        os.kill(os.getpid(), signal.SIGSEGV)
    if content == "crash":
        (out / f"{name}.half.txt").write_text("half")
        raise RuntimeError("killed")
    path = out / f"{name}.txt"
    path.write_text(content)
    return Row(name, key, len(content)), [path]


def build(out: Path, jobs: list[Job], max_bad_fraction: float = 1.0) -> BuildResult[Row]:
    BUILT.clear()
    out.mkdir(exist_ok=True)
    return build_missing(out, jobs, work, Row, label="test", max_bad_fraction=max_bad_fraction)


@pytest.fixture(autouse=True)
def in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")


def jobs(**contents: str) -> list[Job]:
    return [Job(name * 16, f"key of {content}", (content,), 0) for name, content in contents.items()]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_what_is_missing_is_built(tmp_path: Path) -> None:
    first = build(tmp_path / "o", jobs(a="1", b="22"))
    assert BUILT == ["a", "b"] and [row.size for row in first.rows] == [1, 2]
    assert build(tmp_path / "o", jobs(a="1", b="22")) == first and not BUILT
    build(tmp_path / "o", jobs(a="1", b="22", c="333"))
    assert BUILT == ["c"]
    build(tmp_path / "o", jobs(a="1", b="other", c="333"))
    assert BUILT == ["b"]


def test_missing_file_is_built_again(tmp_path: Path) -> None:
    build(tmp_path / "o", jobs(a="1", b="22"))
    (tmp_path / "o" / f"{'b' * 16}.txt").unlink()
    build(tmp_path / "o", jobs(a="1", b="22"))
    assert BUILT == ["b"]


def test_file_of_another_length_is_built_again(tmp_path: Path) -> None:
    build(tmp_path / "o", jobs(a="1", b="22"))
    (tmp_path / "o" / f"{'b' * 16}.txt").write_text("2")
    build(tmp_path / "o", jobs(a="1", b="22"))
    assert BUILT == ["b"]


def test_file_of_other_bytes_is_built_again_where_it_was_touched_after_its_entry(tmp_path: Path) -> None:
    build(tmp_path / "o", jobs(a="1", b="22"))
    entry, file = (tmp_path / "o" / f"{'b' * 16}.{kind}" for kind in ("json", "txt"))
    after = entry.stat().st_mtime_ns + 1
    for text, built in (("22", []), ("33", ["b"])):  # touched only; damaged
        file.write_text(text)
        os.utime(file, ns=(after, after))
        build(tmp_path / "o", jobs(a="1", b="22"))
        assert built == BUILT and file.read_text() == "22"


def test_reading_a_missing_or_altered_file_is_refused(tmp_path: Path) -> None:
    build(tmp_path, jobs(a="1", b="2"))
    first, second = (tmp_path / f"{name * 16}.txt" for name in "ab")
    assert verify_checksum(first) == first
    first.rename(tmp_path / "x")
    with pytest.raises(UserError, match=rf"{first}: is missing; delete {first.with_suffix('')}\.\* and run"):
        verify_checksum(first)
    second.rename(first)  # two files exchanged, of the same length
    with pytest.raises(UserError, match=rf"{first}: differs from what its stage wrote; delete .* dvc repro"):
        verify_checksum(first)
    (tmp_path / "x").rename(first)
    (tmp_path / f"{'a' * 16}.json").write_text("{")
    assert [file.name for file in list_files(tmp_path)] == [f"{'a' * 16}.json", second.name]
    assert verify_checksum(first) == first  # its stage rebuilds it


def list_files(folder: Path) -> list[FileRecord]:
    return [file for name in list_entries(folder) for file in read_entry(folder / name)]


def test_files_are_listed_with_length_and_digest(tmp_path: Path) -> None:
    build(tmp_path / "o", jobs(b="22", a="1", c="bad"))
    assert [replace(file, written_ns=0) for file in list_files(tmp_path / "o")] == [
        FileRecord(name * 16, f"{name * 16}.txt", len(text), hashlib.sha256(text.encode()).hexdigest(), 0)
        for name, text in (("a", "1"), ("b", "22"))
    ]


def test_a_truncated_entry_is_ignored(tmp_path: Path) -> None:
    build(tmp_path, jobs(a="one"))
    (tmp_path / f"{'a' * 16}.json").write_text("")
    assert build(tmp_path, jobs(a="one")).rows and BUILT == ["a"]


def test_files_of_no_item_are_pruned(tmp_path: Path) -> None:
    build(tmp_path / "o", jobs(a="1", b="22"))
    (tmp_path / "o" / f"{'f' * 16}.left.mkv").write_text("x")
    build(tmp_path / "o", jobs(a="1"))
    assert set(content(tmp_path / "o")) == {f"{'a' * 16}.json", f"{'a' * 16}.txt", "failed.parquet"}


def test_killed_run_continues_to_the_same_bytes(tmp_path: Path) -> None:
    build(tmp_path / "undisturbed", jobs(a="1", b="22", c="333"))
    with pytest.raises(RuntimeError):
        build(tmp_path / "o", jobs(a="1", b="crash", c="333"))
    build(tmp_path / "o", jobs(a="1", b="22", c="333"))
    assert BUILT == ["b", "c"]
    assert content(tmp_path / "o") == content(tmp_path / "undisturbed")


def test_changing_back_after_a_kill_does_not_trust_half_of_the_new_files(tmp_path: Path) -> None:
    build(tmp_path / "o", jobs(a="old"))
    with pytest.raises(RuntimeError):
        build(tmp_path / "o", jobs(a="crash"))
    build(tmp_path / "o", jobs(a="old"))
    assert BUILT == ["a"]


def test_failed_clips_are_listed_and_too_many_stop_the_stage(tmp_path: Path) -> None:
    done = build(tmp_path / "o", jobs(a="1", b="bad"))
    assert (
        done.failed
        == [FailedItem("b" * 16, "no good", "b is bad")]
        == read_table(tmp_path / "o" / "failed.parquet", FailedItem)
    )
    assert build(tmp_path / "o", jobs(a="1", b="bad")) == done and not BUILT
    with pytest.raises(UserError, match=r"1 of 2 clips failed.*max_bad_fraction.*no good"):
        build(tmp_path / "o", jobs(a="1", b="bad"), max_bad_fraction=0.4)


def test_too_many_failed_clips_end_the_run_early_and_finished_ones_stay(tmp_path: Path) -> None:
    many = jobs(a="1", b="bad", c="bad", d="1", e="1")
    with pytest.raises(UserError, match=r"2 of 5 clips failed.*: no good \(b is bad\); not tried: 2"):
        build(tmp_path / "o", many, max_bad_fraction=0.2)
    assert BUILT == ["a", "b", "c"]
    assert [item.id[0] for item in read_table(tmp_path / "o" / "failed.parquet", FailedItem)] == ["b", "c"]
    build(tmp_path / "o", many, max_bad_fraction=0.4)
    assert BUILT == ["d", "e"]


def of_film(film: str, **contents: str) -> list[Job]:
    return [replace(job, film=film) for job in jobs(**contents)]


GOOD = of_film("good", a="1", b="1", c="1", d="1", e="1")
GARBAGE = of_film("garbage", **dict.fromkeys("0123456", "bad"))


def test_a_film_whose_clips_all_fail_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = build(tmp_path / "o", [*GARBAGE, *GOOD], max_bad_fraction=0.5)  # 7 of 12 clips, 1 of 6
    assert len(done.rows) == 5 and len(done.failed) == 7
    assert capsys.readouterr().out == "test: no clip is left of garbage\n"
    assert build(tmp_path / "o", [*GARBAGE, *GOOD], max_bad_fraction=1 / 6) == done and not BUILT
    with pytest.raises(UserError, match=r"7 of 12 clips failed \(1 of 6 if .* counts once\), more than"):
        build(tmp_path / "o", [*GARBAGE, *GOOD], max_bad_fraction=0.16)
    with pytest.raises(UserError, match=r"1 of 12 clips failed \(1 of 6 .*; not tried: 11"):
        build(tmp_path / "other", [*GARBAGE, *GOOD], max_bad_fraction=0.0)


def test_a_stage_that_fails_on_every_film_or_on_most_clips_of_one_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"7 of 7 clips failed \(1 of 1 "):
        build(tmp_path / "a", GARBAGE, max_bad_fraction=0.9)
    mixed = of_film("mixed", a="1", b="bad", c="bad")
    with pytest.raises(UserError, match=r"2 of 3 clips failed, more than dataset.max_bad_fraction 0.5"):
        build(tmp_path / "b", mixed, max_bad_fraction=0.5)
    assert build(tmp_path / "b", [*mixed, *of_film("good", d="1")], max_bad_fraction=0.5).rows


def test_a_crashing_clip_fails_and_is_tried_again_in_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path / "o", jobs(a="1", b="22"))
    with monkeypatch.context() as patch:
        patch.setenv("SECONDEYE_WORKERS", "2")
        done = build(tmp_path / "o", jobs(a="1", b="poison"))
    assert (
        "test: 1 clip failed because the worker crashed; `dvc repro --force` retries them"
        in capsys.readouterr().out
    )
    assert done.failed == [
        FailedItem("b" * 16, "worker crashed", "its process was killed by SIGSEGV in 2 of 2 attempts")
    ]
    assert [row.size for row in done.rows] == [1]
    assert set(content(tmp_path / "o")) == {f"{'a' * 16}.json", f"{'a' * 16}.txt", "failed.parquet"}
    build(tmp_path / "o", [*jobs(a="1"), Job("b" * 16, "key of poison", ("22",), 0)])
    assert BUILT == ["b"]


@pytest.mark.parametrize("left", [".DS_Store", "._0123456789abcdef.left.mkv", "Thumbs.db", "desktop.ini"])
def test_files_of_file_browsers_are_tolerated(tmp_path: Path, left: str) -> None:
    build(tmp_path / "o", jobs(a="1"))
    (tmp_path / "o" / left).touch()
    assert len(build(tmp_path / "o", jobs(a="1")).rows) == 1


def test_a_folder_with_foreign_files_is_never_pruned(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "my_film.mp4").write_text("precious")
    with pytest.raises(UserError, match=r"contains my_film.mp4, which no stage wrote"):
        build(tmp_path / "raw", jobs(a="1"))
    assert set(content(tmp_path / "raw")) == {"my_film.mp4"}


def test_disk_space_is_required_for_missing_items_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path / "o", jobs(a="1"))
    huge = [Job("a" * 16, "key of 1", ("1",), 1e18)]
    assert build(tmp_path / "o", huge).rows  # already built
    with pytest.raises(UserError, match=r"test: .* needs up to"):
        build(tmp_path / "o", [*huge, Job("b" * 16, "k", ("1",), 1e18)])


def test_key_follows_inputs_params_columns_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    splat = SplatParams(weight_exponent_per_px=0.5)
    key = make_key("splat", Row, [splat], ["input"])
    assert key == make_key("splat", Row, [SplatParams(weight_exponent_per_px=0.5)], ["input"])
    assert key != make_key("splat", Row, [SplatParams(weight_exponent_per_px=0.6)], ["input"])
    assert key != make_key("splat", Row, [splat], ["other input"])
    assert key != make_key("splat", FailedItem, [splat], ["input"])
    assert key != make_key("shift", Row, [splat], ["input"])
    uncached = code_hash.code_and_versions.__wrapped__
    monkeypatch.setattr(code_hash, "code_and_versions", uncached)
    monkeypatch.setattr(code_hash, "version", lambda name: "0")
    assert key != make_key("splat", Row, [splat], ["input"])

"""The inbox: what is converted, replaced, set aside and named, through the flow; stopped at any point."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import pytest
from conftest import damage
from test_flows import small_project, wait_for, without_prefect  # noqa: F401

from secondeye.conversion.checkpoint import open_checkpoint
from secondeye.conversion.settings import ConversionSettings
from secondeye.system.errors import UserError
from secondeye.video.probe import ffmpeg_url, probe

# ruff: noqa: F811  # parameters have the names of the fixtures


class Commands:
    """`secondeye` for the flow: outputs hold the hash of their film, films fail as `ends` says."""

    def __init__(self, failure: type[UserError]) -> None:
        self.failure = failure
        self.ends: dict[str, tuple[int, str]] = {}  # film -> exit code and last line; 3 writes an output
        self.calls: list[tuple[str, ...]] = []
        self.during: Callable[[Path, Path], None] = lambda film, output: None
        self.after: Callable[[Path, Path], None] = lambda film, output: None

    def __call__(self, command: list[str], log: Callable[[str], None], *others: Any) -> None:
        name, *rest = command[3:]
        if name == "model":
            self.calls.append((rest[0], *(Path(path).name for path in rest[1:2])))
            return
        film, output, options = Path(rest[0]), Path(rest[4]), rest[5:]
        self.calls.append((film.name, output.name, *options))
        code, line = self.ends.get(film.name, (0, ""))
        self.during(film, output)
        assert output.exists() <= ("--overwrite" in options)
        if code in (0, 3):
            output.with_suffix(".part").write_text(content(film))
            os.replace(output.with_suffix(".part"), output)
        self.after(film, output)
        if code:
            raise self.failure(command, code, [line])  # type: ignore[call-arg]

    def lines_of(self, command: list[str]) -> Iterator[str]:
        """Yield the output of `secondeye model init` or `secondeye model record`."""
        self(command, print)
        yield "champion: version 1" if command[4] == "init" else "0123abcd"

    def converted(self) -> list[tuple[str, ...]]:
        """Return the conversions since the last call: film, output, options."""
        made = [call for call in self.calls if call[0] not in ("init", "record", "control.mp4")]
        self.calls.clear()
        return made


class Drill(SimpleNamespace):
    """An inbox with its outbox and commands."""

    inbox: Path
    outbox: Path
    commands: Commands
    lines: list[str]
    flow: Callable[..., None]
    film: Path

    def run(self, **options: Any) -> list[tuple[str, ...]]:
        """Run the flow; return what was converted."""
        self.lines.clear()
        self.commands.calls.clear()
        self.flow(str(self.inbox), str(self.outbox), **options)
        return self.commands.converted()

    def put(self, name: str, content: bytes = b"", age_s: float = 3600) -> Path:
        """Put a film into the inbox, which `content` at its end makes another one."""
        path = self.inbox / name
        path.write_bytes(self.film.read_bytes() + content)
        os.utime(path, (time.time() - age_s,) * 2)
        return path

    def record(self) -> dict[str, dict[str, Any]]:
        return json.loads((self.inbox / ".films.json").read_text())

    def outputs(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.outbox.glob("[!.]*")}


def content(film: Path) -> str:
    return hashlib.sha256(film.read_bytes()).hexdigest()


@pytest.fixture
def drill(
    flows: SimpleNamespace,
    conversion: ModuleType,
    tmp_path: Path,
    make_film: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Drill:
    commands, lines = Commands(flows.commands.CommandFailed), []

    def log(line: str) -> None:
        if not line.startswith(("champion: ", "0123abcd")):
            lines.append(line)

    monkeypatch.setattr(conversion, "run_command", commands)
    monkeypatch.setattr(conversion, "command_lines", commands.lines_of)
    for module in (conversion, flows.notify):
        monkeypatch.setattr(module, "run_log", lambda: log)
    inbox, outbox = tmp_path / "in", tmp_path / "out"
    inbox.mkdir()
    film = make_film(shots=(2,), height=32, width=32, sound=False)
    return Drill(
        inbox=inbox,
        outbox=outbox,
        commands=commands,
        lines=lines,
        flow=flows.conversion.convert_folder.fn,
        film=film,
    )


# What is converted


def test_a_film_is_converted_once(drill: Drill) -> None:
    film = drill.put("a.mp4")
    assert drill.run() == [("a.mp4", "a_LRF_Full_SBS.mp4")]
    entry = drill.record()["a.mp4"]
    size = film.stat().st_size
    digest = hashlib.sha256(str(size).encode() + 3 * film.read_bytes()).hexdigest()
    assert entry == {
        "stem": "a_LRF_Full_SBS",
        "state": "done",
        "size": size,
        "mtime_ns": film.stat().st_mtime_ns,
        "digest": digest,
        "output": "a_LRF_Full_SBS.mp4",
        "replaces": [],
        "attempts": 0,
        "reason": "",
        "aside": "",
    }
    assert drill.run() == [] and drill.lines == []
    os.utime(film, (5, 5))  # touched, not replaced
    assert drill.run() == [] and drill.record()["a.mp4"]["mtime_ns"] == 5 * 10**9
    assert drill.outputs() == {"a_LRF_Full_SBS.mp4": content(film)}


def test_a_champion_is_made_only_before_a_film(drill: Drill) -> None:
    drill.flow(str(drill.inbox), str(drill.outbox))
    assert drill.commands.calls == []
    drill.put("a.mp4")
    drill.flow(str(drill.inbox), str(drill.outbox))
    assert drill.commands.calls == [
        ("init",),
        ("a.mp4", "a_LRF_Full_SBS.mp4"),
        ("record", "a_LRF_Full_SBS.mp4"),
    ]


@pytest.mark.parametrize("longer", [b"longer", b""], ids=["size", "content"])
def test_a_replaced_film_is_converted_over_its_output(drill: Drill, longer: bytes) -> None:
    old = content(drill.put("a.mp4", b"1"))
    drill.run()
    film = drill.put("a.mp4", b"2" + longer, age_s=1800)
    seen: list[str] = []
    drill.commands.during = lambda film, output: seen.append(output.read_text())
    assert drill.run() == [("a.mp4", "a_LRF_Full_SBS.mp4", "--overwrite")]
    assert seen == [old], "the old output stays until the new one is whole"
    assert drill.outputs() == {"a_LRF_Full_SBS.mp4": content(film)}
    assert drill.run() == []


def test_a_film_replaced_while_it_is_converted_is_converted_again(drill: Drill) -> None:
    drill.put("a.mp4", b"1")
    drill.commands.after = lambda film, output: drill.put("a.mp4", b"2", age_s=100)
    drill.run()
    assert any(line.startswith("a.mp4: was replaced while") for line in drill.lines)
    drill.commands.after = lambda film, output: None
    assert drill.run() == [("a.mp4", "a_LRF_Full_SBS.mp4", "--overwrite")]
    assert drill.outputs() == {"a_LRF_Full_SBS.mp4": content(drill.inbox / "a.mp4")}
    assert drill.run() == []


def test_a_replacement_with_other_sound_leaves_one_output(
    drill: Drill, make_film: Callable[..., Path]
) -> None:
    drill.put("a.mkv")
    assert drill.run() == [("a.mkv", "a_LRF_Full_SBS.mp4")]
    drill.film = with_pcm_sound(make_film("sound.mp4", shots=(2,), height=32, width=32))
    drill.put("a.mkv")
    assert drill.run() == [("a.mkv", "a_LRF_Full_SBS.mkv")]
    assert drill.outputs() == {"a_LRF_Full_SBS.mkv": content(drill.inbox / "a.mkv")}
    assert drill.run() == []


def with_pcm_sound(film: Path) -> Path:
    """Write the film as .mkv with PCM sound, which mp4 cannot hold."""
    path = film.with_suffix(".mkv")
    with av.open(ffmpeg_url(film)) as source, av.open(ffmpeg_url(path), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("pcm_s16le", rate=48000, layout="stereo")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
        frame = av.AudioFrame(format="s16", layout="stereo", samples=1024)
        frame.sample_rate, frame.pts = 48000, 0
        target.mux(sound.encode(frame))
    return path


def test_a_deleted_output_is_made_again(drill: Drill) -> None:
    drill.put("a.mp4")
    drill.run()
    (drill.outbox / "a_LRF_Full_SBS.mp4").unlink()
    assert drill.run() == [("a.mp4", "a_LRF_Full_SBS.mp4")]


# Names


@pytest.mark.parametrize(
    ("films", "stems"),
    [
        (["a.mkv", "a.mp4"], ["a_LRF_Full_SBS", "a.mp4_LRF_Full_SBS"]),
        (["a.mp4", "a.mkv", "a.mkv.mp4"], ["a.mp4_LRF_Full_SBS", "a_LRF_Full_SBS", "a.mkv_LRF_Full_SBS"]),
        (["a.mp4", "A.mp4"], ["a.mp4_LRF_Full_SBS", "A_LRF_Full_SBS"]),
    ],
)
def test_outputs_never_share_a_name(drill: Drill, films: list[str], stems: list[str]) -> None:
    """The first by name gets the plain one."""
    for name in films:
        drill.put(name, name.encode())
    drill.run()
    made = {name: drill.record()[name]["stem"] for name in films}
    assert made == dict(zip(films, stems, strict=True))
    assert drill.outputs() == {f"{made[name]}.mp4": content(drill.inbox / name) for name in films}
    assert drill.run() == []


def test_names_stay_when_films_come_and_go(drill: Drill) -> None:
    drill.put("a.mp4", b"1")
    drill.run()
    drill.put("a.avi", b"2")
    assert drill.run() == [("a.avi", "a.avi_LRF_Full_SBS.mp4")]
    (drill.inbox / "a.mp4").unlink()
    drill.put("a.mkv", b"3")
    assert drill.run() == [("a.mkv", "a.mkv_LRF_Full_SBS.mp4")], "the output of the film that is gone stays"
    (drill.outbox / "a_LRF_Full_SBS.mp4").unlink()
    drill.put("a.mov", b"4")
    assert drill.run() == [("a.mov", "a_LRF_Full_SBS.mp4")]
    assert drill.run() == [] and set(drill.record()) == {"a.avi", "a.mkv", "a.mov"}


def made_from(film: Path, output: Path, source: str) -> None:
    """Copy a film to an output that says what it was made from."""
    with av.open(ffmpeg_url(film)) as original, av.open(ffmpeg_url(output), "w") as copy:
        stream = copy.add_stream_from_template(original.streams.video[0])
        copy.metadata["comment"] = json.dumps({"secondeye": "0.1.0", "source": source})
        for packet in original.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)


def test_outputs_of_earlier_versions_keep_their_names(drill: Drill) -> None:
    drill.put("a.mp4")
    drill.outbox.mkdir()
    made_from(drill.film, drill.outbox / "a_sbs.mp4", "a.mp4")
    assert drill.run() == [] and drill.record()["a.mp4"]["output"] == "a_sbs.mp4"
    drill.put("a.mp4", b"another")
    assert drill.run() == [("a.mp4", "a_sbs.mp4", "--overwrite")]


def test_another_layout_gets_another_name_when_a_film_is_converted_again(drill: Drill) -> None:
    drill.put("a.mp4")
    assert drill.run() == [("a.mp4", "a_LRF_Full_SBS.mp4")]
    assert drill.run(layout="half-sbs") == [], "what is converted stays"
    drill.put("a.mp4", b"another")
    assert drill.run(layout="half-sbs") == [("a.mp4", "a_half-sbs.mp4", "--layout=half-sbs")]
    assert set(drill.outputs()) == {"a_half-sbs.mp4"}


def test_outputs_have_the_tag_of_their_layout_and_a_suffix_that_holds_the_codec(drill: Drill) -> None:
    drill.put("a.mp4")
    options = {"layout": "tb", "first": "right", "codec": "ffv1"}
    given = ("--layout=tb", "--first=right", "--codec=ffv1")
    assert drill.run(**options) == [("a.mp4", "a_BT.mkv", *given)]
    assert drill.run(**options) == []
    for wrong, error in (("left-right-files", "makes two files of a film"), ("cross", "must be one of sbs")):
        with pytest.raises(UserError, match=f"--layout.*{error}"):
            drill.run(layout=wrong)


@pytest.mark.parametrize("damaged", [False, True])
def test_without_a_record_outputs_say_what_is_converted(drill: Drill, damaged: bool) -> None:
    for name in ("a.mkv", "a.mp4", "b.mp4", "c.mp4"):
        drill.put(name, name.encode())
    drill.outbox.mkdir()
    made_from(drill.film, drill.outbox / "a_LRF_Full_SBS.mp4", "a.mp4")
    made_from(drill.film, drill.outbox / "b_LRF_Full_SBS.mkv", "b.avi")  # of another film
    (drill.outbox / "c_LRF_Full_SBS.mp4").write_text("says nothing")
    if damaged:
        (drill.inbox / ".films.json").write_text('{"a.mp4": {"stem": 7}}')
    assert drill.run() == [("a.mkv", "a.mkv_LRF_Full_SBS.mp4"), ("b.mp4", "b.mp4_LRF_Full_SBS.mp4")]
    told = [line for line in drill.lines if "taken as converted" in line]
    assert [line.split(":")[0] for line in told] == ["a.mp4", "c.mp4"]
    assert ["does not say" in line for line in told] == [False, True]
    assert (drill.inbox / ".films.json.damaged").exists() == damaged
    assert drill.run() == [] and drill.lines == []
    drill.put("c.mp4", b"another")
    assert drill.run() == [("c.mp4", "c_LRF_Full_SBS.mp4", "--overwrite")]


# Failures


def test_a_film_that_fails_three_times_is_set_aside(drill: Drill) -> None:
    film = drill.put("bad.mp4")
    drill.commands.ends["bad.mp4"] = (1, "secondeye: no such pixel")
    drill.put("good.mp4")
    checkpoint = drill.outbox / ".bad_LRF_Full_SBS.mp4.unfinished"
    for attempt in (1, 2, 3):
        assert film.exists()
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "plan.json").write_text("{}")
        with pytest.raises(UserError, match=rf"bad.mp4 \(attempt {attempt} of 3.*no such pixel$"):
            drill.run()
    failed = drill.inbox / "failed"
    assert not film.exists() and not checkpoint.exists()
    assert {path.name for path in failed.iterdir()} == {"bad.mp4", "bad.mp4.txt"}
    note = (failed / "bad.mp4.txt").read_text()
    assert "no such pixel" in note and "3 attempts" in note
    assert f"secondeye convert {failed / 'bad.mp4'} --model models:/secondeye@champion\n" in note
    assert drill.run() == [] and drill.lines == []
    assert set(drill.outputs()) == {"good_LRF_Full_SBS.mp4"}

    os.rename(failed / "bad.mp4", film)
    with pytest.raises(UserError, match=r"bad.mp4 \(attempt 1 of 3\)"):
        drill.run()
    del drill.commands.ends["bad.mp4"]
    assert drill.run() == [("bad.mp4", "bad_LRF_Full_SBS.mp4")]
    assert drill.run() == []


def test_films_set_aside_do_not_replace_each_other(drill: Drill) -> None:
    drill.commands.ends["bad.mp4"] = (1, "secondeye: no such pixel")
    for number in (b"1", b"2", b"3"):
        drill.put("bad.mp4", number)
        with pytest.raises(UserError):
            drill.run(attempts=1)
    kept = {path.name for path in (drill.inbox / "failed").glob("*.mp4")}
    assert kept == {"bad.mp4", "bad-2.mp4", "bad-3.mp4"}
    assert (drill.inbox / "failed/bad-3.mp4").read_bytes().endswith(b"3")
    assert all((drill.inbox / "failed" / f"{name}.txt").exists() for name in kept)


def test_a_replaced_film_that_fails_keeps_its_old_output_and_is_tried_again(drill: Drill) -> None:
    old = content(drill.put("a.mp4", b"1"))
    drill.run()
    drill.put("a.mp4", b"2")
    drill.commands.ends["a.mp4"] = (1, "secondeye: no such pixel")
    with pytest.raises(UserError):
        drill.run(attempts=1)
    assert drill.run() == [] and drill.outputs() == {"a_LRF_Full_SBS.mp4": old}
    os.rename(drill.inbox / "failed/a.mp4", drill.inbox / "a.mp4")
    drill.commands.ends.clear()
    assert drill.run() == [("a.mp4", "a_LRF_Full_SBS.mp4", "--overwrite")]


def test_a_film_that_cannot_be_moved_is_not_tried_again(
    drill: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of another user in a shared folder with the sticky bit."""

    def refuse(*given: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    drill.put("bad.mp4")
    drill.commands.ends["bad.mp4"] = (1, "secondeye: no such pixel")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        with pytest.raises(UserError):
            drill.run(attempts=1)
        assert drill.run(attempts=1) == [] and len(drill.lines) == 1
    assert drill.run(attempts=1) == [] and (drill.inbox / "failed/bad.mp4").exists()


def test_the_failure_of_a_film_that_is_replaced_meanwhile_does_not_count(drill: Drill) -> None:
    drill.put("a.mp4", b"1")
    drill.commands.ends["a.mp4"] = (1, "secondeye: no such pixel")
    drill.commands.during = lambda film, output: drill.put("a.mp4", b"2", age_s=100)
    with pytest.raises(UserError):
        drill.run(attempts=1)
    drill.commands.ends.clear()
    assert drill.run() == [("a.mp4", "a_LRF_Full_SBS.mp4")]


def test_a_film_replaced_after_a_failure_has_all_its_attempts(drill: Drill) -> None:
    drill.commands.ends["a.mp4"] = (1, "secondeye: no such pixel")
    for number in (b"1", b"2"):
        drill.put("a.mp4", number)
        with pytest.raises(UserError, match="attempt 1 of 2"):
            drill.run(attempts=2)


@pytest.mark.parametrize(
    ("code", "line", "counts"),
    [
        (1, "secondeye: a.mp4: not a film", True),
        (1, "KeyError: 'x'", True),
        (-signal.SIGSEGV, "", True),
        (2, "No such option: --tilse", False),
        (4, "secondeye: MLflow is unreachable", False),
        (130, "secondeye: interrupted", False),
        (-signal.SIGKILL, "", True),
        (-signal.SIGTERM, "", False),
        (1, "secondeye: out: No space left on device; free some", False),
        (
            1,
            "secondeye: convert: out needs up to 1 GiB; free disk space or process less",
            False,
        ),
        (1, "secondeye: --tiles must be 1 to 16 or auto, got 99", False),
        (1, "secondeye: models:/secondeye@champion: no version has this alias", False),
        (1, "secondeye: out: another process is working in it; wait until it ends, or stop it", False),
    ],
)
def test_only_failures_of_the_film_count(drill: Drill, code: int, line: str, counts: bool) -> None:
    drill.put("a.mp4")
    drill.commands.ends["a.mp4"] = (code, line)
    with pytest.raises(UserError, match=r"^1 of 1 film failed: a.mp4"):
        drill.run(attempts=1)
    assert (drill.inbox / "failed/a.mp4").exists() == counts
    assert (drill.inbox / "a.mp4").exists() != counts


def test_no_film_is_set_aside_if_a_control_film_fails(drill: Drill) -> None:
    """As when the champion does not work: the inbox would be emptied into failed/."""
    for name in ("a.mp4", "b.mp4"):
        drill.put(name)
    broken = (1, "ImportError: a library is missing")
    drill.commands.ends = {"a.mp4": broken, "b.mp4": broken, "control.mp4": broken}
    for counted in (True, False, False):
        drill.commands.calls.clear()
        with pytest.raises(UserError, match="attempt 1 of 2" if counted else "control film fails, too"):
            drill.flow(str(drill.inbox), str(drill.outbox), attempts=2)
        assert [call[0] for call in drill.commands.calls].count("control.mp4") == (not counted)
    del drill.commands.ends["control.mp4"], drill.commands.ends["b.mp4"]
    with pytest.raises(UserError, match=r"^1 of 2 films failed: a.mp4 \(attempt 2 of 2, the last\)"):
        drill.run(attempts=2)
    assert {path.name for path in (drill.inbox / "failed").glob("*.mp4")} == {"a.mp4"}


def test_a_damaged_film_counts_as_converted(drill: Drill) -> None:
    drill.put("a.mp4")
    drill.commands.ends["a.mp4"] = (3, "secondeye: warning: a.mp4: ends early after 2 frames")
    drill.flow(str(drill.inbox), str(drill.outbox))
    assert drill.commands.calls[-1] == ("record", "a_LRF_Full_SBS.mp4")
    assert "ends early after 2 frames" in drill.record()["a.mp4"]["reason"]
    assert any(line.startswith("a.mp4: damaged") for line in drill.lines)
    assert drill.run() == []


def test_a_film_taken_out_while_it_is_converted_is_no_failure(drill: Drill) -> None:
    drill.put("a.mp4")
    drill.commands.ends["a.mp4"] = (1, "secondeye: a.mp4: file does not exist")
    drill.commands.during = lambda film, output: film.unlink()
    drill.run(attempts=1)
    assert drill.run() == [] and drill.record() == {}


# Stopped at any point


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def kill_at(moment: int, flows: SimpleNamespace, drill: Drill, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kill the run before its `moment`-th change of a file; return the changes before it."""
    changes: list[str] = []

    def watch(module: Any, name: str) -> None:
        change = getattr(module, name)

        def step(*given: Any, **options: Any) -> Any:
            if len(changes) == moment:
                raise Killed
            changes.append(name)
            return change(*given, **options)

        monkeypatch.setattr(module, name, step)

    watch(flows.inbox_record, "write_atomic")
    watch(flows.inbox, "write_atomic")
    watch(drill.commands, "during")
    watch(drill.commands, "after")
    for name in ("rename", "mkdir"):
        watch(os, name)
    watch(Path, "unlink")
    return changes


@pytest.mark.parametrize("case", ["new", "replaced", "replaced by other sound", "bad"])
def test_a_run_killed_at_any_change_is_continued(
    flows: SimpleNamespace, drill: Drill, make_film: Callable[..., Path], case: str
) -> None:
    other = with_pcm_sound(make_film("sound.mp4", shots=(2,), height=32, width=32))
    plain, moment = drill.film, 0
    while True:
        for folder in (drill.inbox, drill.outbox):
            shutil.rmtree(folder, ignore_errors=True)
        drill.inbox.mkdir()
        drill.film, drill.commands.ends = plain, {}
        film = drill.put("a.mkv", b"1")
        if case.startswith("replaced"):
            drill.run()
            drill.film = other if "sound" in case else plain
            film = drill.put("a.mkv", b"2")
        drill.commands.ends = {"a.mkv": (1, "secondeye: no such pixel")} if case == "bad" else {}
        expected = content(film)
        with pytest.MonkeyPatch.context() as patch:
            changes = kill_at(moment, flows, drill, patch)
            killed = False
            try:
                drill.run(attempts=1)
            except Killed:
                killed = True
            except UserError:
                assert case == "bad"
        for _ in range(2):
            with suppress(UserError):  # `bad` may have its attempt left
                drill.run(attempts=1)
        assert drill.run() == [] and drill.lines == [], (moment, changes)
        if case == "bad":
            names = {path.name for path in (drill.inbox / "failed").iterdir()}
            assert names == {"a.mkv", "a.mkv.txt"} and not film.exists(), (moment, changes)
        else:
            name = "a_LRF_Full_SBS.mkv" if "sound" in case else "a_LRF_Full_SBS.mp4"
            assert drill.outputs() == {name: expected}, (moment, changes)
        if not killed:
            break
        moment += 1
    assert moment >= 10, "that many changes were interrupted"


def test_an_output_that_was_not_recorded_is_found(drill: Drill) -> None:
    drill.put("a.mp4", b"1")

    def kill(film: Path, output: Path) -> None:
        raise Killed

    drill.commands.after = kill
    with pytest.raises(Killed):
        drill.run()
    drill.commands.after = lambda film, output: None
    drill.commands.calls.clear()
    drill.flow(str(drill.inbox), str(drill.outbox))
    assert drill.commands.calls == [("record", "a_LRF_Full_SBS.mp4")], "published, not converted again"
    assert drill.record()["a.mp4"]["state"] == "done"


# Folders


def test_films_that_are_left_are_named(drill: Drill) -> None:
    drill.put("copying.mp4", age_s=1)
    drill.put("future.mp4", age_s=-86400)
    drill.put(".hidden.mp4")
    (drill.inbox / "link.mp4").symlink_to("nowhere")
    os.mkfifo(drill.inbox / "pipe.mp4")
    (drill.inbox / "season").mkdir()
    (drill.inbox / "failed").mkdir()
    (drill.inbox / "notes.txt").write_text("no film")
    shutil.copy(drill.film, drill.inbox / "season" / "a.mp4")
    shutil.copy(drill.film, drill.inbox / "failed" / "b.mp4")
    assert drill.run() == [("future.mp4", "future_LRF_Full_SBS.mp4")]
    assert sorted(line.split(":")[0] for line in drill.lines) == [
        str(drill.inbox / "season"),
        "copying.mp4",
        "link.mp4",
        "pipe.mp4",
    ]


def test_unsuitable_folders_are_refused(drill: Drill, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(drill.inbox)
    for outbox in (drill.inbox, drill.inbox / "out", tmp_path, tmp_path / "link"):
        drill.outbox = outbox
        with pytest.raises(UserError, match="one contains the other"):
            drill.run()
    for outbox, reason in ((tmp_path / "file", "is a file"), (Path("/proc/here"), "cannot be written")):
        drill.outbox = outbox
        with pytest.raises(UserError, match=rf"^{outbox}: {reason}"):
            drill.run()
    assert not (drill.inbox / ".films.json").exists()


def test_two_runs_take_turns(drill: Drill) -> None:
    drill.put("a.mp4")
    started, go_on = threading.Event(), threading.Event()

    def wait(film: Path, output: Path) -> None:
        started.set()
        assert go_on.wait(10)

    drill.commands.during = wait
    runs = [threading.Thread(target=drill.flow, args=(str(drill.inbox), str(drill.outbox))) for _ in range(2)]
    runs[0].start()
    assert started.wait(10)
    runs[1].start()
    wait_for(lambda: drill.lines, 5)
    assert drill.lines == [f"{drill.inbox}: another run is converting its films; waiting until it ends"]
    go_on.set()
    for run in runs:
        run.join(10)
    assert drill.commands.converted() == [("a.mp4", "a_LRF_Full_SBS.mp4")]


def test_a_film_is_made_whole_beside_its_output(drill: Drill, tmp_path: Path) -> None:
    """The rename that gives it its name stays within one file system, also behind a link."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    settings = ConversionSettings(3.0, 0.5, "motion", "fill", 16, "ultrafast", None)
    output = (tmp_path / "out" / "a_LRF_Full_SBS.mp4").resolve()
    with open_checkpoint(output, probe(drill.film), settings) as checkpoint:
        assert checkpoint.folder.parent == tmp_path / "disk"


# Slow: the command line, MLflow and Prefect


@pytest.mark.slow(seconds=105)
def test_films_through_the_command_line(
    small_project: Path, make_registry: Callable[[Path], None], make_film: Callable[..., Path]
) -> None:
    """A film, a damaged one and no film at all; then the film is replaced. No output is ever incomplete."""
    make_registry(small_project)
    inbox, outbox = small_project / "in", small_project / "out"
    inbox.mkdir()
    outbox.mkdir()
    shapes = {"height": 32, "width": 48}
    age(shutil.move(make_film("good.mp4", shots=(9, 8), **shapes), inbox))
    age(damage(Path(shutil.move(make_film("damaged.mp4", shots=(40,), **shapes), inbox))))
    (inbox / "broken.mp4").write_text("no film")
    age(inbox / "broken.mp4")
    seen: set[tuple[str, int, int]] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            for path in outbox.glob("[!.]*"):
                seen.add((path.name, path.stat().st_size, path.stat().st_mtime_ns))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        first = convert_folder(small_project, "--attempts", "1")
        assert first.returncode == 1, first.stderr
        failure = "conversion: 1 of 3 films failed: broken.mp4 (attempt 1 of 1, the last): "
        assert any(line.startswith(failure) for line in first.stderr.splitlines())
        assert {path.name for path in inbox.glob("[!.]*")} == {"good.mp4", "damaged.mp4", "failed"}
        assert (inbox / "failed/broken.mp4").read_text() == "no film"
        assert "not a film" in (inbox / "failed/broken.mp4.txt").read_text()
        assert (
            frames(outbox / "good_LRF_Full_SBS.mp4") == 17
            and 0 < frames(outbox / "damaged_LRF_Full_SBS.mp4") < 40
        )
        entry = json.loads((inbox / ".films.json").read_text())["damaged.mp4"]
        assert entry["state"] == "done" and "do not decode: 1" in entry["reason"]

        age(shutil.move(make_film("good.mp4", shots=(12,), **shapes), inbox / "good.mp4"))
        second = convert_folder(small_project)
        assert second.returncode == 0, second.stderr
        assert frames(outbox / "good_LRF_Full_SBS.mp4") == 12
    finally:
        stop.set()
        watcher.join()
    assert sorted(name for name, *_ in seen) == [
        "damaged_LRF_Full_SBS.mp4",
        "good_LRF_Full_SBS.mp4",
        "good_LRF_Full_SBS.mp4",
    ]
    assert [path for path in outbox.glob(".*")] == []


def convert_folder(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    # Not to wait for the commands of other tests.
    command = [
        sys.executable,
        "flows/conversion.py",
        "in",
        "out",
        "--preset=ultrafast",
        "--share-machine",
        *options,
    ]
    environment = {name: value for name, value in without_prefect().items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def age(film: Path) -> None:
    os.utime(film, (time.time() - 3600,) * 2)


def frames(film: Path) -> int:
    return probe(film).frames

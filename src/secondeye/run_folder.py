"""Run folders: the record of a training or evaluation run on disk.

.runs/<key>/
  run.json       key, stage, params, tags; `weights` and `"finished": true` once it is done
  metrics.jsonl  one line per logged step: {"step": 10, "loss": 0.2}; the record omits MACHINE_METRICS
  tables/        Parquet, CSV or Markdown
  pictures/      PNG
  origin.json    where and when it ran: git commit, whether files differed from it, time, machine
  uncommitted.patch  how they differed, without dvc.lock and reports/
  failure.txt    why it failed, until it is resumed
  checkpoints/   to resume from; deleted when the run is finished
  model/         the finished weights

The first four are the record. The same key gives the same record, so a DVC out may contain a copy of it, and
weights from DVC's cache come with their run. Only secondeye.registry knows MLflow.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from secondeye.execution import code_hash
from secondeye.system.errors import UserError
from secondeye.system.files import hash_weights, write_atomic
from secondeye.system.process import is_dir_locked, is_main_process, lock_dir
from secondeye.system.text import pluralize

RECORD = ("run.json", "metrics.jsonl", "tables", "pictures")
MACHINE_METRICS = ("samples_per_second", "memory_mib")  # not reproducible, so not part of the record
_TRAINING_LIBRARIES = ("accelerate", "diffusers", "peft", "transformers")
PATCH = "uncommitted.patch"
_FAILURE = "failure.txt"
_MAX_PATCH_BYTES = 2**20
_LONGEST_WAIT_S = 60.0  # timeout for the main process to open a run


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path

    @property
    def key(self) -> str:
        return str(self.read()["key"])

    @property
    def finished(self) -> bool:
        return bool(self.read()["finished"])

    @property
    def failure(self) -> str:
        """Why the run failed when it was worked on last; "" if it did not."""
        path = self.folder / _FAILURE
        return path.read_text().strip() if path.exists() else ""

    @property
    def status(self) -> str:
        """FINISHED, RUNNING while a process on this machine works on it, FAILED, or else KILLED."""
        if self.finished:
            return "FINISHED"
        if is_dir_locked(self.folder):
            return "RUNNING"
        return "FAILED" if self.failure else "KILLED"

    @property
    def checkpoints(self) -> Path:
        return _made(self.folder / "checkpoints")

    @property
    def model(self) -> Path:
        """Folder of the weights; complete once the run is finished."""
        return self.folder / "model"

    def read(self) -> dict[str, Any]:
        """Return run.json: key, stage, params, tags, finished."""
        content: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        return content

    def picture(self, name: str) -> Path:
        """Return the path for a picture (.png)."""
        return _made(self.folder / "pictures") / name

    def table(self, name: str) -> Path:
        """Return the path for a table."""
        return _made(self.folder / "tables") / name

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl. Raises UserError if it cannot be written."""
        path = self.folder / "metrics.jsonl"
        try:
            with path.open("a") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); free disk space and start again: "
                "the training resumes from its last checkpoint"
            ) from error

    def metrics(self) -> list[dict[str, float]]:
        """Return the complete lines of metrics.jsonl."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def rewind(self, step: int, prefix: str = "") -> None:
        """Delete lines at `step` or later that have metrics with this prefix; they will be logged again."""
        kept = [
            line
            for line in self.metrics()
            if line["step"] < step or not any(name.startswith(prefix) for name in line if name != "step")
        ]
        write_atomic(self.folder / "metrics.jsonl", _lines(kept))

    def finish(self, tags: Mapping[str, str]) -> None:
        """Mark the run as finished and delete its checkpoints."""
        content = self.read()
        content["tags"] |= tags
        write_atomic(self.folder / "run.json", _json(content | {"finished": True}))
        if (self.folder / "checkpoints").exists():
            shutil.rmtree(self.folder / "checkpoints")


def make_run_key(module: str, sections: Sequence[object], inputs: Mapping[str, str]) -> str:
    """Return the key of a run: a hash of its code, params sections, inputs and library versions."""
    parts = code_hash.code_and_versions(module) | {
        "training": code_hash.library_versions(_TRAINING_LIBRARIES),
        "params": [asdict(section) for section in sections],  # type: ignore[call-overload]
        "inputs": dict(inputs),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def open_run(
    runs: Path,
    key: str,
    stage: str,
    settings: object,  # a params section; nested keys become dotted names
    tags: Mapping[str, str],
) -> Run:
    """Return the run with this key; create it if it does not exist.

    Under torchrun the main process creates it and the others wait. Raises UserError if it does not appear.
    """
    run = Run(runs / key)
    if not is_main_process():
        _wait_for(run.folder / "run.json")
    elif not (run.folder / "run.json").exists():
        run.folder.mkdir(parents=True, exist_ok=True)
        patch = _uncommitted_changes()
        if patch:
            write_atomic(run.folder / PATCH, patch)
        write_atomic(run.folder / "origin.json", _json(_origin() | {"git_dirty": bool(patch)}))
        params = dict(_flat(asdict(settings)))  # type: ignore[call-overload]
        content = {"key": key, "stage": stage, "params": params, "tags": dict(tags)}
        write_atomic(run.folder / "run.json", _json(content | {"finished": False}))
    return run


@contextmanager
def working_on(run: Run) -> Iterator[None]:
    """Lock a run folder for the duration of the block, and record the exception that ends it.

    Raises UserError if another process holds the run.
    """
    with lock_dir(run.folder):
        (run.folder / _FAILURE).unlink(missing_ok=True)
        try:
            yield
        finally:
            if isinstance(error := sys.exc_info()[1], Exception):  # not Ctrl-C
                lines = f"{type(error).__name__}: {error}".splitlines()
                with suppress(OSError):  # a full disk may be the failure
                    write_atomic(run.folder / _FAILURE, lines[0] + "\n")


def finish_model(out: Path, run: Run, train: Callable[[Run], None]) -> None:
    """Write the weights and record of a run to `out`; call `train` if the run is not finished.

    A killed run resumes. Under torchrun the main process writes the folders and the others only compute.
    Raises UserError if another process holds the run, or if its weights have changed since it finished.
    """
    if not is_main_process():
        if not run.finished and not _is_delivered(run, out):
            train(run)
        return
    with lock_dir(out):
        if _is_delivered(run, out):
            print(f"{out}: already trained, nothing to do")
            return
        with working_on(run):
            if run.finished:
                print(f"{out}: already trained, copied from {run.folder}")
            else:
                train(run)
                run.finish({"weights": hash_weights(run.model)})
            if not _is_whole(run, run.model):
                raise UserError(
                    f"{run.model}: changed after its training finished; delete {run.folder} to train it again"
                )
        _deliver(run, out)


def _is_delivered(run: Run, out: Path) -> bool:
    """Return whether `out` has the weights of this run, unchanged since it finished."""
    record = Run(out / "run")
    return (record.folder / "run.json").exists() and record.key == run.key and _is_whole(record, out)


def _is_whole(record: Run, weights: Path) -> bool:
    return hash_weights(weights) == record.read()["tags"].get("weights")


def _deliver(run: Run, out: Path) -> None:
    """Replace the content of `out`; run/run.json goes first and comes last, as it marks completeness."""
    (out / "run" / "run.json").unlink(missing_ok=True)
    for path in out.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(run.model, out, dirs_exist_ok=True)
    copy_record(run, out / "run")


def copy_record(run: Run, folder: Path) -> None:
    """Copy the record of a run; run.json is written last."""
    folder.mkdir()
    for source in (run.folder / name for name in RECORD[1:]):
        if source.is_dir():
            shutil.copytree(source, folder / source.name)
    if (run.folder / "metrics.jsonl").exists():
        write_atomic(folder / "metrics.jsonl", _lines(repeatable(run.metrics())))
    write_atomic(folder / "run.json", (run.folder / "run.json").read_text())


def repeatable(lines: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return the lines without metrics that depend on the machine and its load."""
    return [
        {name: value for name, value in line.items() if name.rpartition("/")[2] not in MACHINE_METRICS}
        for line in lines
    ]


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + _LONGEST_WAIT_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise UserError(
                f"{path}: not written by the main process within {_LONGEST_WAIT_S:g} s; all processes "
                "of a training must see the same folder"
            )
        time.sleep(0.05)


def _origin() -> dict[str, object]:
    return {
        "git_sha": _git("rev-parse", "HEAD").decode().strip() or "unknown",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {pluralize(os.cpu_count() or 1, 'core')}",
    }


def _uncommitted_changes() -> bytes:
    """Return the changes since the last commit as a patch, without what stages write; cut at 1 MiB."""
    outs = (":(exclude)dvc.lock", ":(exclude)reports")
    return _git("diff", "HEAD", "--", ".", *outs)[:_MAX_PATCH_BYTES]


def _git(*arguments: str) -> bytes:
    """Return what a git command prints; nothing if it fails or git is not installed."""
    if shutil.which("git") is None:
        return b""
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    return b"" if done.returncode else done.stdout


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _lines(metrics: Sequence[Mapping[str, float]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in metrics)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _json(content: object) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"

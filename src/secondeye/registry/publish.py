"""Mirror run folders into MLflow, while they grow or afterwards; nothing is logged twice.

A run is identified by its key, in the tag `secondeye.key`. Tags also record how much of the folder has been
mirrored, so that a copied or rebuilt folder continues where MLflow stopped.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondeye.registry.server import connected, experiment_of
from secondeye.run_folder import Run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as MlflowRun

KEY = "secondeye.key"
# Number of lines of metrics.jsonl in MLflow. A trailing "+" means that more were sent, but the sender ended
# before it confirmed that they had arrived.
LINES = "secondeye.lines"
UNTIL = "secondeye.until_ms"  # timestamp of the last line
FILES = "secondeye.files"  # a hash of the pictures and tables
_ARTIFACT_FOLDERS = ("pictures", "tables")


@dataclass(frozen=True)
class Published:
    """What one call added to MLflow."""

    name: str  # of the run
    lines: int  # new lines of metrics.jsonl
    files: int  # pictures and tables, if any of them was new
    deleted: bool = False  # the run was deleted in MLflow and is not restored

    @property
    def changed(self) -> bool:
        return bool(self.lines or self.files)


def publish(folder: Path) -> Published:
    """Mirror one run folder or a copy of its record. Raises ServerUnreachable and UserError."""
    with connected() as client:
        return _mirror(client, experiment_of(client), Run(folder))


def publish_all(roots: Sequence[Path]) -> list[Published]:
    """Mirror every run below these folders once. Raises ServerUnreachable and UserError."""
    with connected() as client:
        experiment = experiment_of(client)
        return [_mirror(client, experiment, run) for run in find_runs(roots)]


def find_runs(roots: Sequence[Path]) -> list[Run]:
    """Return the runs in ROOT/KEY and records in ROOT/**/run; of equal keys the first, or a finished one."""
    found: dict[str, Run] = {}
    for root in roots:
        for path in (*sorted(root.glob("*/run.json")), *sorted(root.rglob("run/run.json"))):
            run = Run(path.parent)
            known = found.setdefault(run.key, run)
            if run.finished and not known.finished:
                found[run.key] = run
    return list(found.values())


def _mirror(client: "MlflowClient", experiment: str, run: Run) -> Published:
    content = run.read()
    existing = _find(client, experiment, content["key"])
    if existing is not None and existing.info.lifecycle_stage == "deleted":
        return Published(_name(content), 0, 0, deleted=True)
    if existing is None:
        existing = _create(client, experiment, run, content)
    run_id, tags = existing.info.run_id, existing.data.tags
    _send_tags(client, run_id, _tags(run, content), tags)
    _send_params(client, run_id, content["params"], existing.data.params)
    lines = _send_metrics(client, run_id, run, tags)
    files = _send_files(client, run_id, run, tags)
    if content["finished"] and existing.info.status != "FINISHED":
        client.set_terminated(run_id, "FINISHED", end_time=_written_ms(run.folder / "run.json"))
    return Published(_name(content), lines, files)


def _find(client: "MlflowClient", experiment: str, key: str) -> "MlflowRun | None":
    from mlflow.entities import ViewType

    found = client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", ViewType.ALL, max_results=1)
    return found[0] if found else None


def _create(client: "MlflowClient", experiment: str, run: Run, content: Mapping[str, Any]) -> "MlflowRun":
    return client.create_run(
        experiment,
        start_time=_started_ms(run),
        tags={KEY: content["key"], LINES: "0"},
        run_name=_name(content),
    )


def _sanitize(name: str) -> str:
    """Replace characters that MLflow does not allow in names; film names may contain them."""
    return re.sub(r"[^/\w.\- :]", "_", name)


def _name(content: Mapping[str, Any]) -> str:
    return f"{content['stage']} {content['key'][:8]}"


def _tags(run: Run, content: Mapping[str, Any]) -> dict[str, str]:
    """Return tags with the provenance of a run; under MLflow's own names if its UI has a column for them."""
    params = json.dumps(content["params"], sort_keys=True)
    origin = run.folder / "origin.json"
    facts = {
        "stage": content["stage"],
        "params_hash": hashlib.sha256(params.encode()).hexdigest()[:16],
        **content["tags"],
        **(json.loads(origin.read_text()) if origin.exists() else {}),
    }
    tags = {f"secondeye.{name}": str(value) for name, value in facts.items()}
    tags |= {"mlflow.source.name": f"secondeye stage {content['stage']}", "mlflow.source.type": "LOCAL"}
    if facts.get("git_sha", "unknown") != "unknown":
        tags["mlflow.source.git.commit"] = str(facts["git_sha"])
    return tags


def _send_tags(
    client: "MlflowClient", run_id: str, facts: Mapping[str, str], existing: Mapping[str, str]
) -> None:
    from mlflow.entities import RunTag

    new = [RunTag(name, value) for name, value in facts.items() if existing.get(name) != value]
    if new:
        client.log_batch(run_id, tags=new)


def _send_params(
    client: "MlflowClient", run_id: str, params: Mapping[str, object], existing: Mapping[str, str]
) -> None:
    from mlflow.entities import Param

    named = {_sanitize(name): str(value) for name, value in params.items()}
    new = [Param(name, value) for name, value in named.items() if name not in existing]
    if new:
        client.log_batch(run_id, params=new)


def _send_metrics(client: "MlflowClient", run_id: str, run: Run, tags: Mapping[str, str]) -> int:
    """Send the lines that MLflow lacks. A rewound file grows to the same lines again."""
    from mlflow.entities import RunTag

    lines = run.metrics()
    state = tags.get(LINES, "0")
    done = int(state.removesuffix("+"))
    new = lines[done:]
    if not new:
        return 0
    until_ms = _lines_written_ms(run)
    points = _points(new, int(tags.get(UNTIL, _started_ms(run))), until_ms)
    arrived = _arrived(client, run_id, points) if state.endswith("+") else set()
    client.set_tag(run_id, LINES, f"{done}+")
    client.log_batch(run_id, metrics=[point for point in points if (point.key, point.step) not in arrived])
    client.log_batch(run_id, tags=[RunTag(LINES, str(len(lines))), RunTag(UNTIL, str(until_ms))])
    return len(new)


def _points(lines: Sequence[Mapping[str, float]], after_ms: int, until_ms: int) -> "list[Metric]":
    """Return metrics with timestamps, which are interpolated because the lines have none."""
    from mlflow.entities import Metric

    after_ms = min(after_ms, until_ms)
    return [
        Metric(_sanitize(name), float(value), time_ms, int(line["step"]))
        for number, line in enumerate(lines, 1)
        for time_ms in [after_ms + (until_ms - after_ms) * number // len(lines)]
        for name, value in line.items()
        if name != "step"
    ]


def _arrived(client: "MlflowClient", run_id: str, points: "Sequence[Metric]") -> set[tuple[str, int]]:
    """Return (name, step) of those metrics that MLflow already has."""
    names = {point.key for point in points}
    return {(name, point.step) for name in names for point in client.get_metric_history(run_id, name)}


def _send_files(client: "MlflowClient", run_id: str, run: Run, tags: Mapping[str, str]) -> int:
    """Send all pictures and tables if any is new: there are few, and MLflow replaces them."""
    paths = [
        path
        for folder in _ARTIFACT_FOLDERS
        for path in sorted((run.folder / folder).rglob("*"))
        if path.is_file() and not path.name.startswith(".")  # temporary file
    ]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(
            f"{path.relative_to(run.folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest()
        )
    if not paths or tags.get(FILES) == digest.hexdigest():
        return 0
    for path in paths:
        client.log_artifact(run_id, str(path), path.parent.relative_to(run.folder).as_posix())
    client.set_tag(run_id, FILES, digest.hexdigest())
    return len(paths)


def _started_ms(run: Run) -> int:
    """Return the start time; for a record without origin.json, one second per line before the last write."""
    origin = run.folder / "origin.json"
    if origin.exists():
        return round(datetime.fromisoformat(json.loads(origin.read_text())["started"]).timestamp() * 1000)
    return _lines_written_ms(run) - 1000 * len(run.metrics())


def _lines_written_ms(run: Run) -> int:
    path = run.folder / "metrics.jsonl"
    return _written_ms(path if path.exists() else run.folder / "run.json")


def _written_ms(path: Path) -> int:
    return path.stat().st_mtime_ns // 1_000_000

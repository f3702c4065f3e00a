"""Mirror run folders into MLflow, while they grow or afterwards; nothing is logged twice.

A run is identified by its key, in the tag `secondeye.key`. Tags also record how much of the folder has been
mirrored, so that a copied or rebuilt folder continues where MLflow stopped.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondeye.registry.kinds import KINDS, experiment_name, metric_name, sanitize
from secondeye.registry.server import connected, experiment_of
from secondeye.run_folder import PATCH, Run

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
PIPELINE = "secondeye.pipeline"  # ids of evaluations, separated by spaces: see _pipelines_of
_ARTIFACT_FOLDERS = ("pictures", "tables")
_ALL_SCORES = "all_scores.json"
_MAX_DIGEST = 16  # hexadecimal digits of a hash that name a dataset; MLflow allows 36


@dataclass(frozen=True)
class Published:
    """What one call added to MLflow."""

    name: str  # of the run
    run_id: str  # in MLflow
    status: str  # FINISHED, RUNNING, FAILED or KILLED
    lines: int = 0  # new lines of metrics.jsonl
    files: int = 0  # pictures and tables, if any of them was new
    deleted: bool = False  # the run was deleted in MLflow and is not restored

    @property
    def changed(self) -> bool:
        return bool(self.lines or self.files)


def publish(folder: Path) -> Published:
    """Mirror one run folder or a copy of its record. Raises ServerUnreachable and UserError."""
    with connected() as client:
        return _mirror(client, Run(folder), {})


def publish_all(roots: Sequence[Path]) -> list[Published]:
    """Mirror every run below these folders once. Raises ServerUnreachable and UserError."""
    runs = find_runs(roots)
    pipelines = _pipelines(runs)
    with connected() as client:
        return [_mirror(client, run, pipelines) for run in runs]


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


def _pipelines(runs: Sequence[Run]) -> dict[str, set[str]]:
    """Return the pipelines of each training run, by key: the evaluations that judged its weights."""
    found: dict[str, set[str]] = {}
    for run in runs:
        content = run.read()
        if content["stage"] == "evaluate":
            for name, key in content["tags"].items():
                if name.startswith("run."):
                    found.setdefault(key, set()).add(_short(content["key"]))
    return found


def _mirror(client: "MlflowClient", run: Run, pipelines: Mapping[str, set[str]]) -> Published:
    content, status = run.read(), run.status
    experiment = _experiment(client, content["stage"])
    existing = _find(client, [experiment, experiment_of(client)], content["key"])
    if existing is not None and existing.info.lifecycle_stage == "deleted":
        return Published(_name(run, content), existing.info.run_id, existing.info.status, deleted=True)
    if existing is None:
        existing = _create(client, experiment, run, content)
    run_id, tags = existing.info.run_id, existing.data.tags
    _send_tags(client, run_id, _tags(run, content, pipelines, tags), tags)
    _send_params(client, run_id, content["params"], existing.data.params)
    if not (existing.inputs and existing.inputs.dataset_inputs):
        _send_datasets(client, run_id, content["tags"])
    lines = _send_metrics(client, run_id, run, content["stage"], tags)
    files = _send_files(client, run_id, run, tags)
    if status == "RUNNING" != existing.info.status:
        client.update_run(run_id, status=status)
    elif status != existing.info.status:
        name = "run.json" if status == "FINISHED" else "metrics.jsonl"
        client.set_terminated(run_id, status, end_time=_last_written_ms(run, name))
    return Published(_name(run, content), run_id, status, lines, files)


def _experiment(client: "MlflowClient", stage: str) -> str:
    description = KINDS[stage].description if stage in KINDS else ""
    return experiment_of(client, experiment_name(stage), description)


def _find(client: "MlflowClient", experiments: list[str], key: str) -> "MlflowRun | None":
    """Return a run by its key. Earlier versions put all runs into one experiment, where they stay."""
    from mlflow.entities import ViewType

    found = client.search_runs(experiments, f"tags.`{KEY}` = '{key}'", ViewType.ALL, max_results=1)
    return found[0] if found else None


def _create(client: "MlflowClient", experiment: str, run: Run, content: Mapping[str, Any]) -> "MlflowRun":
    return client.create_run(
        experiment,
        start_time=_started_ms(run),
        tags={KEY: content["key"], LINES: "0"},
        run_name=_name(run, content),
    )


def _name(run: Run, content: Mapping[str, Any]) -> str:
    """Return what the run made, the start of its key, and when it started (UTC)."""
    stage, tags = content["stage"], content["tags"]
    label = KINDS[stage].label if stage in KINDS else stage
    subject = tags.get("part") or tags.get("film") or ""
    started = datetime.fromtimestamp(_started_ms(run) / 1000, UTC)
    return f"{' '.join(filter(None, (label, subject)))} {_short(content['key'])}, {started:%Y-%m-%d %H:%M}"


def _short(key: str) -> str:
    return key[:8]


def _tags(
    run: Run, content: Mapping[str, Any], pipelines: Mapping[str, set[str]], existing: Mapping[str, str]
) -> dict[str, str]:
    """Return tags with the provenance of a run; under MLflow's own names if its UI has a column for them."""
    params = json.dumps(content["params"], sort_keys=True)
    origin = run.folder / "origin.json"
    facts = {
        "stage": content["stage"],
        "params_hash": hashlib.sha256(params.encode()).hexdigest()[:16],
        "failure": run.failure,
        **content["tags"],
        **(json.loads(origin.read_text()) if origin.exists() else {}),
    }
    if joined := _pipelines_of(content, pipelines) | set(existing.get(PIPELINE, "").split()):
        facts["pipeline"] = " ".join(sorted(joined))
    # An empty tag is only sent to replace an older value.
    tags = {
        f"secondeye.{name}": str(value)
        for name, value in facts.items()
        if value != "" or f"secondeye.{name}" in existing
    }
    tags |= {"mlflow.source.name": f"secondeye stage {content['stage']}", "mlflow.source.type": "LOCAL"}
    if facts.get("git_sha", "unknown") != "unknown":
        tags["mlflow.source.git.commit"] = str(facts["git_sha"])
    return tags


def _pipelines_of(content: Mapping[str, Any], pipelines: Mapping[str, set[str]]) -> set[str]:
    """Return the ids of the pipelines that a run belongs to: the evaluation in the middle gives the id."""
    if content["stage"] == "evaluate":
        return {_short(content["key"])}
    if evaluation := content["tags"].get("evaluation"):
        return {_short(evaluation)}
    return pipelines.get(content["key"], set())


def _send_datasets(client: "MlflowClient", run_id: str, tags: Mapping[str, str]) -> None:
    """Name the data of a run, as its page shows it: training data, or held-out clips."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = json.dumps({"licences": tags["licences"]}) if "licences" in tags else None
    datasets = [
        DatasetInput(
            Dataset(name, digest[:_MAX_DIGEST], "local", json.dumps({"uri": uri}), profile=profile),
            [InputTag("mlflow.data.context", context)],
        )
        for name, digest, uri, context in (
            ("dataset", tags.get("dataset", ""), "data/filter", "train"),
            ("held-out clips", tags.get("manifest", ""), "data/evaluate", "test"),
        )
        if digest
    ]
    if datasets:
        client.log_inputs(run_id, datasets)


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

    named = {sanitize(name): str(value) for name, value in params.items()}
    new = [Param(name, value) for name, value in named.items() if name not in existing]
    if new:
        client.log_batch(run_id, params=new)


def _send_metrics(client: "MlflowClient", run_id: str, run: Run, stage: str, tags: Mapping[str, str]) -> int:
    """Send the lines that MLflow lacks. A rewound file grows to the same lines again."""
    from mlflow.entities import RunTag

    lines = run.metrics()
    state = tags.get(LINES, "0")
    done = int(state.removesuffix("+"))
    new = lines[done:]
    if not new:
        return 0
    until_ms = _last_written_ms(run, "metrics.jsonl")
    points = _points(stage, new, int(tags.get(UNTIL, _started_ms(run))), until_ms)
    arrived = _arrived(client, run_id, points) if state.endswith("+") else set()
    client.set_tag(run_id, LINES, f"{done}+")
    client.log_batch(run_id, metrics=[point for point in points if (point.key, point.step) not in arrived])
    if stage == "evaluate":
        _send_all_scores(client, run_id, new)
    client.log_batch(run_id, tags=[RunTag(LINES, str(len(lines))), RunTag(UNTIL, str(until_ms))])
    return len(new)


def _send_all_scores(client: "MlflowClient", run_id: str, lines: Sequence[Mapping[str, float]]) -> None:
    """Send the scores of an evaluation as one table: a row per method, a column per score."""
    import pandas as pd

    named = [(*name.rpartition("/")[::2], value) for line in lines for name, value in line.items()]
    frame = pd.DataFrame([row for row in named if row[0]], columns=["method", "score", "value"])
    if frame.empty or any(item.path == _ALL_SCORES for item in client.list_artifacts(run_id)):
        return  # it would be appended
    table = frame.pivot_table("value", "method", "score", sort=False).reset_index()
    # log_table selects dtype object in a way that pandas deprecates for its own dtype of strings.
    client.log_table(run_id, table.astype({"method": object}), _ALL_SCORES)


def _points(stage: str, lines: Sequence[Mapping[str, float]], after_ms: int, until_ms: int) -> "list[Metric]":
    """Return metrics with timestamps, which are interpolated because the lines have none."""
    from mlflow.entities import Metric

    after_ms = min(after_ms, until_ms)
    return [
        Metric(shown, float(value), time_ms, int(line["step"]))
        for number, line in enumerate(lines, 1)
        for time_ms in [after_ms + (until_ms - after_ms) * number // len(lines)]
        for name, value in line.items()
        if name != "step" and (shown := metric_name(stage, name))
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
    paths += [path for path in [run.folder / PATCH] if path.exists()]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(
            f"{path.relative_to(run.folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest()
        )
    if not paths or tags.get(FILES) == digest.hexdigest():
        return 0
    for path in paths:
        folder = path.parent.relative_to(run.folder).as_posix()
        client.log_artifact(run_id, str(path), folder if folder != "." else None)
    client.set_tag(run_id, FILES, digest.hexdigest())
    return len(paths)


def _started_ms(run: Run) -> int:
    """Return the start time; for a record without origin.json, one second per line before the last write."""
    origin = run.folder / "origin.json"
    if origin.exists():
        return round(datetime.fromisoformat(json.loads(origin.read_text())["started"]).timestamp() * 1000)
    return _last_written_ms(run, "metrics.jsonl") - 1000 * len(run.metrics())


def _last_written_ms(run: Run, name: str) -> int:
    """Return the time of a file of the run; of run.json if it does not exist."""
    path = run.folder / name
    path = path if path.exists() else run.folder / "run.json"
    return path.stat().st_mtime_ns // 1_000_000

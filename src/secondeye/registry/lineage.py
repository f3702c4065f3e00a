"""Trace a film, version, run or dataset to what it was made from; a link that leads nowhere is named.

film -> version -> training runs, and the evaluations and gates that judged them -> dataset -> commit, films
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondeye.conversion.bundle_parts import PARTS, SHIPPED
from secondeye.conversion.provenance import describe_model, read_record
from secondeye.dataset.revisions import commit_exists, films_of, find_dataset
from secondeye.registry.history import CHAMPION, NAME, all_versions, champion_of, weights_tags
from secondeye.registry.models import BUNDLE
from secondeye.registry.publish import find_runs
from secondeye.registry.published_runs import all_runs
from secondeye.registry.server import ServerUnreachable, connected
from secondeye.system.errors import UserError
from secondeye.system.files import hash_weights

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PREFIX = "secondeye."
_NO_WEIGHTS = "no weights"
_SHORT = 12  # hexadecimal digits of a hash that are printed
_LONGEST_LIST = 20


@dataclass(frozen=True)
class Link:
    """One line of a lineage, and what it was made from."""

    text: str
    sources: list["Link"] = field(default_factory=list)
    broken: bool = False

    def lines(self, indent: str = "") -> Iterator[str]:
        """Yield the line and, indented, those of its sources."""
        yield f"{indent}{'BROKEN: ' if self.broken else ''}{self.text}"
        for source in self.sources:
            yield from source.lines(indent + "  ")

    @property
    def is_broken(self) -> bool:
        """Whether this link or one below it leads nowhere."""
        return self.broken or any(source.is_broken for source in self.sources)


@dataclass(frozen=True)
class Records:
    """All runs and versions that are known: from run folders, and from MLflow."""

    runs: Mapping[str, Mapping[str, str]]  # key -> tags, without the prefix, and `status`
    mlflow_ids: Mapping[str, str]  # MLflow's id of a run -> key
    versions: Mapping[int, Mapping[str, str]]  # number -> tags
    champion: int | None
    away: str  # why MLflow could not be asked, or ""
    places: str  # where was looked, for error messages


def read_records(roots: Sequence[Path]) -> Records:
    """Read the run folders below `roots`, and MLflow if it can be reached."""
    runs = {
        run.key: _tags_of_folder(run.folder, run.read()) | {"status": run.status} for run in find_runs(roots)
    }
    ids: dict[str, str] = {}
    versions: dict[int, Mapping[str, str]] = {}
    champion, away = None, ""
    try:
        with connected() as client:
            for run_id, tags in _published(client):
                ids[run_id] = tags["key"]
                runs[tags["key"]] = tags | runs.get(tags["key"], {})
            versions = {int(found.version): dict(found.tags) for found in all_versions(client)}
            champion = champion_of(client)
    except ServerUnreachable as error:
        away = str(error)
    places = f"{', '.join(map(str, roots))} and MLflow" + (" (away)" if away else "")
    return Records(runs, ids, versions, champion, away, places)


def _published(client: "MlflowClient") -> Iterator[tuple[str, dict[str, str]]]:
    """Yield MLflow's id and our tags of every run."""
    for run in all_runs(client):
        tags = {
            name.removeprefix(_PREFIX): value
            for name, value in run.data.tags.items()
            if name.startswith(_PREFIX)
        }
        if "key" in tags:
            yield run.info.run_id, tags | {"status": run.info.status}


def _tags_of_folder(folder: Path, content: Mapping[str, Any]) -> dict[str, str]:
    origin = folder / "origin.json"
    facts = {
        "stage": content["stage"],
        **content["tags"],
        **(json.loads(origin.read_text()) if origin.exists() else {}),
    }
    return {name: str(value) for name, value in facts.items()}


def trace(name: str, records: Records) -> Link:
    """Return the lineage of a film (path), version (number or model URI), run (key or id) or dataset (hash).

    Keys, ids and hashes may be shortened to 8 digits. Raises UserError if there is no such thing.
    """
    if Path(name).is_file():
        return _film(Path(name), records)
    if version := _version_number(name, records):
        return _version(version, records)
    if re.fullmatch(r"[0-9a-f]{8,}", name):
        keys = {key for key in records.runs if key.startswith(name)}
        keys |= {key for run_id, key in records.mlflow_ids.items() if run_id.startswith(name)}
        if len(keys) > 1:
            raise UserError(f"{name}: begins the keys of {len(keys)} runs; give more digits")
        if keys:
            return _run(keys.pop(), records)
        return _dataset(name)
    raise UserError(
        f"{name}: neither a film, nor a version (3, models:/{NAME}@{CHAMPION}), nor the hexadecimal key "
        "of a run or hash of a dataset (at least 8 digits)"
    )


def _version_number(name: str, records: Records) -> int | None:
    """Return the version that a number of less than 8 digits or a model URI names; None for another name."""
    if name == f"models:/{NAME}@{CHAMPION}":
        if records.champion is None:
            raise UserError(records.away or f"{name}: no version has this alias")
        return records.champion
    found = re.fullmatch(rf"(?:models:/{NAME}/)?(\d{{1,7}})", name)
    return int(found[1]) if found else None


def _film(path: Path, records: Records) -> Link:
    record = read_record(path)
    if record is None:
        text = f"film {path}: does not say how it was made (looked for the tag `comment` that convert writes)"
        return Link(text, broken=True)
    made = f"from {record['source']}, by secondeye {record['secondeye']}, code {record['code']}"
    settings = ", ".join(f"{name} {value}" for name, value in record["settings"].items() if value is not None)
    sources = [Link(f"settings: {settings}")]
    sources += [_part_of_film(part, record[part], record, records) for part in PARTS]
    if record["version"] is not None:
        sources.append(_version(record["version"], records))
    return Link(f"film {path}: {made}; {describe_model(record)}", sources)


def _part_of_film(part: str, made: Mapping[str, str], record: Mapping[str, Any], records: Records) -> Link:
    weights = made.get("weights", "")
    text = _describe_part(part, made["name"], weights or _NO_WEIGHTS, made["licences"])
    if not weights or record["version"] is not None:  # the version leads on
        return Link(text)
    return Link(text, [_trained(part, weights, records)])


def _describe_part(part: str, name: str, weights: str, licences: str) -> str:
    text = f"{part} {name}: {weights if weights == _NO_WEIGHTS else f'weights {weights[:_SHORT]}'}"
    return text if licences in ("", _NO_WEIGHTS) else f"{text}, licences {licences}"


def _trained(part: str, weights: str, records: Records) -> Link:
    """Return the run that trained the weights whose hash begins so."""
    if hash_weights(SHIPPED / "inpaint").startswith(weights):
        return Link("shipped with the program; its MODEL_CARD.md describes the training")
    for key, tags in records.runs.items():
        if tags.get("weights", "").startswith(weights):
            return _run(key, records)
    text = f"no run has trained the {part} weights {weights[:_SHORT]} (looked in {records.places})"
    return Link(text, broken=True)


def _version(number: int, records: Records) -> Link:
    tags = records.versions.get(number)
    if tags is None:
        where = records.away or f"MLflow has {', '.join(map(str, sorted(records.versions))) or 'no version'}"
        return Link(f"version {number}: not found ({where})", broken=True)
    mark = f" (@{CHAMPION})" if number == records.champion else ""
    sources = [_part_of_version(part, tags, records) for part in PARTS]
    return Link(f"version {number}{mark}: code {tags.get(f'{_PREFIX}code', 'not recorded')}", sources)


def _part_of_version(part: str, tags: Mapping[str, str], records: Records) -> Link:
    """Return a part of a version, which tags of the version describe, and the run that trained it."""
    weights = weights_tags(tags).get(part, "")
    shown = weights or (
        _NO_WEIGHTS if BUNDLE in tags else "not recorded"
    )  # by the version that registered it
    text = _describe_part(part, tags.get(part, "part"), shown, tags.get(f"{part}_licences", ""))
    if key := tags.get(f"{part}_run"):
        return Link(text, [_run(key, records)])
    return Link(text, [_trained(part, weights, records)] if weights else [])


def _run(key: str, records: Records, *, into_data: bool = True) -> Link:
    """Return a run and what it was made from; `into_data` also lists what judged it, and its data."""
    tags = records.runs.get(key)
    if tags is None:
        return Link(f"run {key}: not found (looked in {records.places})", broken=True)
    text = f"run {key[:_SHORT]}: {tags['stage']}, {tags['status']}"
    if verdict := tags.get("verdict"):
        text += f", {tags.get('part', '')} {verdict}: {tags.get('why', '')}"
    if not into_data:
        return Link(text)
    sources = [_commit(tags)]
    sources += [
        Link(f"judged {name.removeprefix('run.')}", [_run(judged, records)])
        for name, judged in sorted(tags.items())
        if name.startswith("run.")
    ]
    judges = [
        other
        for other, facts in records.runs.items()
        if key in (facts.get("evaluation"), *(facts[name] for name in facts if name.startswith("run.")))
        or _has_challenged(tags, facts)
    ]
    sources += [_run(judge, records, into_data=False) for judge in judges]
    if evaluation := tags.get("evaluation"):
        sources.append(_run(evaluation, records, into_data=False))
    if licences := tags.get("licences"):
        sources.append(Link(f"licences of all training data: {licences}"))
    if dataset := tags.get("dataset"):
        sources.append(_dataset(dataset))
    return Link(text, sources)


def _has_challenged(training: Mapping[str, str], gate: Mapping[str, str]) -> bool:
    """Return whether the weights of a training took part in a gate's comparison as the challenger."""
    weights = training.get("weights", "")[:_SHORT]
    return bool(weights) and gate["stage"] == "gate" and weights in gate.get("challenger", "")


def _commit(tags: Mapping[str, str]) -> Link:
    commit = tags.get("git_sha", "unknown")
    if commit == "unknown":
        return Link(
            "Git commit: not recorded (no origin.json in its folder, and no tag in MLflow)", broken=True
        )
    if not commit_exists(commit):
        return Link(f"Git commit {commit[:_SHORT]}: not in this repository (git rev-parse)", broken=True)
    dirty = {"True": ", with uncommitted.patch", "False": ""}.get(
        tags.get("git_dirty", ""), "; not recorded whether files differed"
    )
    return Link(f"Git commit {commit[:_SHORT]}{dirty}")


def _dataset(prefix: str) -> Link:
    """Return a dataset, the commit whose dvc.lock has it, and its films."""
    found, searched, unreadable = find_dataset(prefix)
    text = f"dataset {prefix[:_SHORT]}"
    if found is None:
        where = f"looked in data/validate of {searched} commits that change dvc.lock, and of the workspace"
        hint = f"; {unreadable} of them are not in DVC's cache: dvc fetch --all-commits data/validate"
        return Link(f"{text}: not found ({where}{hint if unreadable else ''})", broken=True)
    text = f"dataset {found.dataset[:_SHORT]}"
    if found.commit:
        place = Link(f"DVC revision: dvc.lock of commit {found.commit[:_SHORT]}, {found.subject}")
    else:
        reason = "only in the workspace; no commit's dvc.lock has it (commit dvc.lock)"
        place = Link(f"DVC revision: {reason}", broken=True)
    try:
        films = films_of(found)
    except UserError as error:
        return Link(text, [place, Link(str(error), broken=True)])
    shown = [Link(f"film {name}: {licence or 'licence not stated'}") for name, licence in films]
    more = len(shown) - _LONGEST_LIST
    rest = [Link(f"and {more} more films")] if more > 0 else []
    return Link(text, [place, *shown[:_LONGEST_LIST], *rest])

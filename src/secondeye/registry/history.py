"""History of the champions, kept in tags of the registered model.

secondeye.history.0001   one Event as JSON; tags of past events are not written again
secondeye.pending        the event that is being carried out; whoever comes next finishes it

The description of the registered model shows the newest events as a table. All functions expect that the
caller holds the client of `server.connected`, so that two processes of a folder cannot write at once. This
lock does not reach other machines that use the same server.
"""

import getpass
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from secondeye.conversion.bundle_parts import PARTS
from secondeye.system.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

NAME = "secondeye"
CHAMPION = "champion"
CHALLENGER = "challenger"  # the newest version that is neither the champion nor vetoed
PROMOTED, ROLLED_BACK, VETOED, SET_ELSEWHERE = "promoted", "rolled back", "vetoed", "set elsewhere"
# error codes for a missing version; a missing alias
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_EVENT = "secondeye.history."
_PENDING = "secondeye.pending"
_CHAMPIONS = "secondeye.champions"  # of earlier versions: the numbers of all champions, without more
_MAX_WHY = 1000  # characters; MLflow stores 5000 in a tag
_MAX_DESCRIPTION = 5000  # characters that MLflow stores
_ABOUT = (
    "Converts 2D films to stereoscopic 3D. `champion` is the version in use, `challenger` the newest other "
    "one that is not vetoed. The newest events; all of them are in the tags and in `secondeye model history`."
)


@dataclass(frozen=True)
class Event:
    """A change of the champion, or a veto."""

    number: int  # from 1
    event: str  # promoted, rolled back, vetoed or set elsewhere
    version: int  # the champion from then on; of a veto: the vetoed version
    previous: int | None  # the champion before; None if there was none, or for a veto
    time: str  # ISO 8601 with seconds, UTC; "" if not recorded
    by: str
    why: str
    weights: Mapping[str, str] = field(default_factory=dict)  # part -> hash of the weights of `version`
    vetoed: Mapping[str, str] = field(default_factory=dict)  # part -> hash of weights vetoed by this event

    def __str__(self) -> str:
        """Return the event as one line."""
        return f"{self.event} by {self.by}, {self.time or 'time not recorded'}: {self.why}"


def who() -> str:
    """Return user@host, and the id of the Prefect flow run if there is one."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        user = str(os.getuid())
    run = os.environ.get("PREFECT__FLOW_RUN_ID", "")
    return f"{user}@{platform.node()}" + (f", flow run {run}" if run else "")


def new_event(
    events: Sequence[Event],  # all so far
    event: str,
    version: int,
    *,
    previous: int | None,
    by: str,
    why: str,
    weights: Mapping[str, str],
    vetoed: Mapping[str, str],
) -> Event:
    """Return the next event, of now."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    why = " ".join(why.split())[:_MAX_WHY]
    return Event(_next_number(events), event, version, previous, time, by, why, weights, vetoed)


def read_events(client: "MlflowClient") -> list[Event]:
    """Return all events, the oldest first."""
    tags = _model_tags(client)
    return [Event(**json.loads(tags[name])) for name in sorted(tags) if name.startswith(_EVENT)]


def past_champions(events: Iterable[Event]) -> list[int]:
    """Return the champions that a rollback would pass, the current one last."""
    champions: list[int] = []
    for event in events:
        if event.event == ROLLED_BACK and event.version in champions:
            while champions[-1] != event.version:
                champions.pop()
        elif event.event != VETOED and champions[-1:] != [event.version]:
            champions.append(event.version)
    return champions


def vetoes(events: Iterable[Event]) -> dict[str, Event]:
    """Return weights hash -> the event that vetoed it. A promotion lifts the vetoes of its weights."""
    found: dict[str, Event] = {}
    for event in events:
        if event.event in (PROMOTED, SET_ELSEWHERE):
            for digest in event.weights.values():
                found.pop(digest, None)
        found |= dict.fromkeys(event.vetoed.values(), event)
    return found


def carry_out(client: "MlflowClient", event: Event) -> None:
    """Set the alias, and store the event; if this is interrupted, `finish_interrupted` completes it.

    Raises UserError if another machine has written at the same moment.
    """
    content = json.dumps(asdict(event), sort_keys=True)
    client.set_registered_model_tag(NAME, _PENDING, content)
    if event.event != VETOED:
        client.set_registered_model_alias(NAME, CHAMPION, str(event.version))
    client.set_registered_model_tag(NAME, _tag(event.number), content)
    refresh(client)
    client.delete_registered_model_tag(NAME, _PENDING)
    current = champion_of(client)
    if _model_tags(client).get(_tag(event.number)) != content or (
        event.event != VETOED and current != event.version
    ):
        raise UserError(
            f"models:/{NAME}@{CHAMPION}: another machine changed the champion at the same moment, it is "
            f"version {current} now; look at `secondeye model history` and try again"
        )


def finish_interrupted(client: "MlflowClient") -> None:
    """Complete the event that a killed process has begun, or drop it if its version was deleted since."""
    pending = _model_tags(client).get(_PENDING)
    if pending is None:
        return
    event = Event(**json.loads(pending))
    if event.version in {int(version.version) for version in all_versions(client)}:
        carry_out(client, event)
    else:
        client.delete_registered_model_tag(NAME, _PENDING)


def adopt_old_champions(client: "MlflowClient") -> None:
    """Turn the list of champions that earlier versions kept into events."""
    tags = _model_tags(client)
    if _CHAMPIONS not in tags:
        return
    previous = None
    for number, version in enumerate(map(int, filter(None, tags[_CHAMPIONS].split(","))), 1):
        event = Event(number, PROMOTED, version, previous, "", "unknown", "before the history was kept")
        client.set_registered_model_tag(NAME, _tag(number), json.dumps(asdict(event), sort_keys=True))
        previous = version
    refresh(client)
    client.delete_registered_model_tag(NAME, _CHAMPIONS)


def refresh(client: "MlflowClient") -> None:
    """Set the alias of the challenger and the description of the model as the history says."""
    events, current = read_events(client), champion_of(client)
    vetoed = vetoes(events)
    others = [
        int(version.version)
        for version in all_versions(client)
        if int(version.version) != current and not vetoed.keys() & weights_tags(version.tags).values()
    ]
    if others:
        client.set_registered_model_alias(NAME, CHALLENGER, str(max(others)))
    elif CHALLENGER in client.get_registered_model(NAME).aliases:
        client.delete_registered_model_alias(NAME, CHALLENGER)
    client.update_registered_model(NAME, to_markdown(events))


def champion_of(client: "MlflowClient") -> int | None:
    """Return the number of the version with the alias, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return int(client.get_model_version_by_alias(NAME, CHAMPION).version)
    except MlflowException as error:
        if error.error_code not in MISSING:
            raise
        return None


def all_versions(client: "MlflowClient") -> "list[ModelVersion]":
    """Return all versions in ascending order."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(f"name='{NAME}'", page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version))


def weights_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return part -> hash of its weights, as the tags of a version name them."""
    return {part: tags[f"{part}_weights"] for part in PARTS if f"{part}_weights" in tags}


def to_markdown(events: Sequence[Event]) -> str:
    """Return the newest events that fit into a description."""
    text = f"{_ABOUT}\n\n| # | event | version | before | time (UTC) | by | why |\n{'|---' * 7}|\n"
    for event in reversed(events):
        cells = (
            event.number,
            event.event,
            event.version,
            event.previous or "",
            event.time.removesuffix("+00:00").replace("T", " "),
            event.by,
            event.why,
        )
        row = f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |\n"
        if len(text) + len(row) > _MAX_DESCRIPTION:
            break
        text += row
    return text


def _next_number(events: Sequence[Event]) -> int:
    return events[-1].number + 1 if events else 1


def _tag(number: int) -> str:
    return f"{_EVENT}{number:04d}"


def _model_tags(client: "MlflowClient") -> dict[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        return dict(client.get_registered_model(NAME).tags)
    except MlflowException as error:
        if error.error_code not in MISSING:
            raise
        return {}

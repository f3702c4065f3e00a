"""Choose the champion: promote, roll back, veto.

Every change names the champion that it was decided against and is refused if that has changed since. Each
function first completes what a killed process has left unfinished.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from secondeye.registry.history import (
    CHAMPION,
    NAME,
    PROMOTED,
    ROLLED_BACK,
    SET_ELSEWHERE,
    VETOED,
    Event,
    adopt_old_champions,
    all_versions,
    carry_out,
    champion_of,
    finish_interrupted,
    new_event,
    past_champions,
    read_events,
    vetoes,
    who,
)
from secondeye.registry.models import find_version, weights_in, weights_of
from secondeye.registry.register import VersionFacts, register_bundle
from secondeye.registry.server import connected
from secondeye.system.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_OLDEST = "the oldest version, as there was no champion"


class ChampionChanged(UserError):
    """Another process changed the champion after the decision to replace it."""


def champion() -> int | None:
    """Return the number of the champion, or None."""
    with _settled() as client:
        return champion_of(client)


def history() -> list[Event]:
    """Return all changes of the champion and all vetoes, the oldest first."""
    with _settled() as client:
        return read_events(client)


def vetoed_weights() -> dict[str, Event]:
    """Return weights hash -> the event that vetoed it."""
    return vetoes(history())


def ensure_champion(bundle: Path, facts: VersionFacts) -> int:
    """Return the champion; without one, promote a version, or register `bundle` if there is none.

    It is the last champion that still exists and is not vetoed, else the oldest version. Raises
    ServerUnreachable.
    """
    with _settled() as client:
        if (current := champion_of(client)) is not None:
            return current
        events = read_events(client)
        existing = [int(version.version) for version in all_versions(client)]
        usable = [number for number in past_champions(events) if _is_usable(client, number, vetoes(events))]
        if usable:
            number, why = usable[-1], "the last champion, as the alias was missing"
        elif existing:
            number, why = existing[0], _OLDEST
        else:
            number, why = register_bundle(client, bundle, facts), facts.description
        _promote(client, number, who(), why)
        return number


def promote(number: int, *, expected: int | None, why: str, by: str | None = None) -> None:
    """Make a version the champion; vetoes of its weights are lifted.

    Raises UserError if it does not exist, and ChampionChanged if the champion is not `expected`.
    """
    with _settled() as client:
        find_version(client, str(number))
        _require_champion(client, expected)
        if number != expected:
            _promote(client, number, by or who(), why)


def register_and_promote(
    bundle: Path, facts: VersionFacts, *, expected: int, why: str, by: str | None = None
) -> int:
    """Register a bundle and make it the champion; return its number.

    Raises ChampionChanged if the champion is not `expected` or new weights in the bundle were vetoed, before
    anything is registered.
    """
    with _settled() as client:
        _require_champion(client, expected)
        kept = weights_of(client, expected)
        for part, digest in weights_in(bundle).items():
            veto = vetoes(read_events(client)).get(digest)
            if veto and kept.get(part) != digest:
                raise ChampionChanged(f"{part} {digest[:12]}: cannot be promoted, it was {veto}")
        number = register_bundle(client, bundle, facts)
        _promote(client, number, by or who(), why)
        return number


def rollback(*, expected: int | None, why: str) -> Event:
    """Make the previous champion the champion again, and veto the weights in which they differ.

    Champions that were deleted or vetoed are passed over. Raises UserError if none is left, and
    ChampionChanged if the champion is not `expected`.
    """
    with _settled() as client:
        _require_champion(client, expected)
        events = read_events(client)
        *past, current = past_champions(events) or [0]
        usable = [number for number in past if _is_usable(client, number, vetoes(events))]
        if not usable:
            raise UserError(f"models:/{NAME}@{CHAMPION}: there is no previous champion to go back to")
        target = usable[-1]
        # What the one that is left brought in itself; parts of champions between them were not judged.
        before = past[-1] if _exists(client, past[-1]) else target
        left = _differing(weights_of(client, current), weights_of(client, before))
        vetoed = _differing(left, weights_of(client, target))
        return _record(client, ROLLED_BACK, target, previous=current, by=who(), why=why, vetoed=vetoed)


def veto(number: int, *, why: str) -> Event:
    """Bar those weights of a version that are not the champion's from challenging.

    Raises UserError if the version is the champion, does not exist, or has no weights of its own.
    """
    with _settled() as client:
        find_version(client, str(number))
        current = champion_of(client)
        if number == current:
            raise UserError(
                f"models:/{NAME}/{number}: is the champion; `secondeye model rollback --why TEXT` restores "
                "the previous champion and vetoes the weights of this one"
            )
        own = _differing(weights_of(client, number), weights_of(client, current) if current else {})
        if not own:
            raise UserError(
                f"models:/{NAME}/{number}: has no weights that the champion does not have; none vetoed"
            )
        return _record(client, VETOED, number, previous=None, by=who(), why=why, vetoed=own)


@contextmanager
def _settled() -> "Iterator[MlflowClient]":
    """Yield a client after unfinished changes were completed, and a change made in MLflow was recorded."""
    with connected() as client:
        finish_interrupted(client)
        adopt_old_champions(client)
        events, current = read_events(client), champion_of(client)
        known = past_champions(events)
        if current is not None and known[-1:] != [current]:
            before = known[-1] if known else None
            why = "the alias was set in MLflow, not by secondeye; found at this time"
            _record(client, SET_ELSEWHERE, current, previous=before, by="unknown", why=why)
        yield client


def _promote(client: "MlflowClient", number: int, by: str, why: str) -> None:
    if vetoes(read_events(client)).keys() & weights_of(client, number).values():
        why = f"{why}; lifts the veto"
    _record(client, PROMOTED, number, previous=champion_of(client), by=by, why=why)


def _record(
    client: "MlflowClient",
    kind: str,
    number: int,
    *,
    previous: int | None,
    by: str,
    why: str,
    vetoed: Mapping[str, str] | None = None,
) -> Event:
    """Carry out the next event and return it."""
    weights = weights_of(client, number)
    event = new_event(
        read_events(client),
        kind,
        number,
        previous=previous,
        by=by,
        why=why,
        weights=weights,
        vetoed=vetoed or {},
    )
    carry_out(client, event)
    return event


def _require_champion(client: "MlflowClient", expected: int | None) -> None:
    current = champion_of(client)
    if current != expected:
        raise ChampionChanged(
            f"models:/{NAME}@{CHAMPION}: changed from version {expected} to {current} while this command "
            "ran; nothing was promoted, run it again"
        )


def _is_usable(client: "MlflowClient", number: int, vetoed: Mapping[str, Event]) -> bool:
    return _exists(client, number) and not vetoed.keys() & weights_of(client, number).values()


def _exists(client: "MlflowClient", number: int) -> bool:
    return number in {int(version.version) for version in all_versions(client)}


def _differing(weights: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    return {part: digest for part, digest in weights.items() if others.get(part) != digest}

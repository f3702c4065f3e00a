"""Champion, history and vetoes: what a promotion, a rollback, a veto and a kill leave behind."""

import json
import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from typer.testing import CliRunner

from secondeye.cli import app
from secondeye.conversion.bundle import Bundle, write_bundle
from secondeye.registry import champion as registry
from secondeye.registry.champion import ChampionChanged
from secondeye.registry.history import (
    PROMOTED,
    ROLLED_BACK,
    SET_ELSEWHERE,
    VETOED,
    Event,
    past_champions,
    read_events,
    to_markdown,
    vetoes,
)
from secondeye.registry.models import fetch_version, weights_in
from secondeye.registry.register import VersionFacts
from secondeye.registry.server import connected
from secondeye.system.errors import UserError

NAME = "secondeye"
NOTHING = VersionFacts({}, "")


def event(number: int, kind: str, version: int, weights: str = "", vetoed: str = "") -> Event:
    return Event(
        number,
        kind,
        version,
        None,
        "",
        "me",
        "test",
        {"inpainter": weights} if weights else {},
        {"inpainter": vetoed} if vetoed else {},
    )


def make_version(content: str) -> int:
    """Add a version without files whose inpainter has weights with this hash."""
    tags = {"secondeye.weights": content, "inpainter_weights": content}
    with connected() as client:
        with suppress(MlflowException):
            client.create_registered_model(NAME)
        return int(client.create_model_version(NAME, "file:///nowhere", tags=tags).version)


def make_bundle(folder: Path, content: str) -> Path:
    """Write a bundle whose inpainter has these weights."""
    weights = folder / f"weights_{content}"
    weights.mkdir()
    (weights / "model.safetensors").write_text(content)
    return write_bundle(folder / f"bundle_{content}", Bundle("motion", "light", 3.0, 0.5), None, weights)


def aliases() -> dict[str, int]:
    with connected() as client:
        found = client.get_registered_model(NAME).aliases
    return {name: int(version) for name, version in found.items()}


def secondeye(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["model", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def three(with_registry: Path) -> Path:
    """Register versions 1, 2 and 3 and promote them one after the other."""
    for content in "abc":
        number = make_version(content)
        registry.promote(number, expected=registry.champion(), why=f"weights {content}")
    return with_registry


def test_replaying_a_history_gives_champions_and_vetoes() -> None:
    events = [
        event(1, PROMOTED, 1, "a"),
        event(2, PROMOTED, 2, "b"),
        event(3, SET_ELSEWHERE, 3, "c"),
        event(4, ROLLED_BACK, 1, "a", "c"),
        event(5, VETOED, 2, "b", "b"),
        event(6, PROMOTED, 4, "d"),
    ]
    assert past_champions(events[:3]) == [1, 2, 3] and past_champions(events[:4]) == [1]
    assert past_champions(events) == [1, 4]
    assert {digest: found.number for digest, found in vetoes(events).items()} == {"c": 4, "b": 5}
    assert vetoes([*events, event(7, PROMOTED, 2, "b")]).keys() == {"c"}


def test_rolling_back_twice_goes_back_two_champions(three: Path) -> None:
    assert aliases() == {"champion": 3, "challenger": 2}
    first = registry.rollback(expected=3, why="flickers")
    assert (first.version, first.previous) == (2, 3) and aliases() == {"champion": 2, "challenger": 1}
    second = registry.rollback(expected=2, why="blurs")
    assert second.version == 1 and aliases() == {"champion": 1}  # the others are vetoed
    with pytest.raises(UserError, match="no previous champion"):
        registry.rollback(expected=1, why="")
    assert [vetoed.why for vetoed in registry.vetoed_weights().values()] == ["flickers", "blurs"]
    assert [found.event for found in registry.history()] == [PROMOTED] * 3 + [ROLLED_BACK] * 2


def test_rollback_passes_over_vetoed_and_deleted_champions(three: Path) -> None:
    registry.promote(make_version("d"), expected=3, why="")
    registry.veto(2, why="licence")
    with connected() as client:
        client.delete_model_version(NAME, "3")
    assert registry.rollback(expected=4, why="").version == 1


def test_a_veto_names_the_weights_that_the_champion_does_not_have(three: Path) -> None:
    with pytest.raises(UserError, match="is the champion; `secondeye model rollback"):
        registry.veto(3, why="")
    vetoed = registry.veto(2, why="licence withdrawn")
    assert vetoed.vetoed == {"inpainter": "b"} and vetoed.by.count("@") == 1
    registry.promote(2, expected=3, why="licence is back")
    assert registry.vetoed_weights() == {} and "lifts the veto" in registry.history()[-1].why
    with pytest.raises(UserError, match="models:/secondeye/9: this version does not exist"):
        registry.veto(9, why="")


def test_the_commands_promote_veto_roll_back_and_tell_the_history(three: Path) -> None:
    assert secondeye("promote", "1", "--why", "compare").startswith("champion: version 1, before: 3")
    assert secondeye("veto", "2", "--why", "artefacts").strip() == "vetoed: inpainter b"
    assert secondeye("rollback", "--why", "worse").startswith("champion: version 3, before: 1; vetoed: ")
    events = json.loads(secondeye("history", "--json"))
    assert [(found["event"], found["version"], found["why"]) for found in events[3:]] == [
        (PROMOTED, 1, "compare"),
        (VETOED, 2, "artefacts"),
        (ROLLED_BACK, 3, "worse"),
    ]
    text = secondeye("history")
    assert "version 3, before: 1: rolled back by" in text and text.count("vetoed: inpainter") == 2
    with connected() as client:
        model = client.get_registered_model(NAME)
    assert [tag for tag in sorted(model.tags) if "history" in tag] == [
        f"secondeye.history.{number:04d}" for number in range(1, 7)
    ]
    assert "| 5 | vetoed | 2 |" in model.description


def test_an_alias_set_in_mlflow_is_recorded(three: Path) -> None:
    with connected() as client:
        client.set_registered_model_alias(NAME, "champion", "1")
    last = registry.history()[-1]
    assert (last.event, last.version, last.previous) == (SET_ELSEWHERE, 1, 3)
    assert registry.rollback(expected=1, why="").version == 3


def test_the_list_of_champions_of_earlier_versions_becomes_history(with_registry: Path) -> None:
    for content in "abc":
        make_version(content)
    with connected() as client:
        client.set_registered_model_alias(NAME, "champion", "3")
        client.set_registered_model_tag(NAME, "secondeye.champions", "1,3")
    assert [(found.version, found.time) for found in registry.history()] == [(1, ""), (3, "")]
    with connected() as client:
        assert "secondeye.champions" not in client.get_registered_model(NAME).tags
    assert registry.rollback(expected=3, why="").version == 1


def test_a_missing_alias_is_restored_from_the_history(three: Path) -> None:
    with connected() as client:
        client.delete_model_version(NAME, "3")
    assert registry.champion() is None
    assert registry.ensure_champion(three, NOTHING) == 2


def test_a_promotion_decided_against_another_champion_is_refused(three: Path) -> None:
    actions: list[Callable[[], object]] = [
        lambda: registry.promote(1, expected=2, why=""),
        lambda: registry.rollback(expected=2, why=""),
        lambda: registry.register_and_promote(three, NOTHING, expected=2, why=""),
    ]
    for action in actions:
        with pytest.raises(ChampionChanged, match="changed from version 2 to 3"):
            action()
    assert registry.champion() == 3 and len(registry.history()) == 3
    with pytest.raises(UserError, match="this version does not exist"):
        registry.promote(4, expected=3, why="")  # nothing was registered


def test_weights_vetoed_while_a_gate_runs_are_not_promoted(three: Path) -> None:
    bundle = make_bundle(three, "x")
    registry.veto(make_version(weights_in(bundle)["inpainter"]), why="licence")
    with pytest.raises(ChampionChanged, match=r"it was vetoed by .*: licence"):
        registry.register_and_promote(bundle, NOTHING, expected=3, why="")
    assert registry.champion() == 3


def promote_in_process(number: int, expected: int, barrier: "multiprocessing.synchronize.Barrier") -> None:
    barrier.wait()
    try:
        registry.promote(number, expected=expected, why="race")
    except ChampionChanged:
        raise SystemExit(1) from None


@pytest.mark.slow(seconds=15)
def test_of_two_promotions_at_once_one_wins(three: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=promote_in_process, args=(n, 3, barrier)) for n in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    codes = [process.exitcode for process in processes]
    assert sorted(codes, key=str) == [0, 1]
    assert registry.champion() == codes.index(0) + 1 and len(registry.history()) == 4


CALLS = (
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "create_model_version",
    "set_registered_model_alias",
    "update_registered_model",
    "set_registered_model_tag",
    "delete_registered_model_tag",
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the program catches it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, wanted: int) -> list[str]:
    """Raise instead of the call with this number to MLflow that writes; return the calls until then."""
    import mlflow

    calls: list[str] = []

    def wrap(name: str) -> None:
        original = getattr(mlflow.MlflowClient, name)

        def call(*args: object, **kwargs: object) -> object:
            calls.append(name)
            if len(calls) == wanted:
                raise Killed
            return original(*args, **kwargs)

        monkeypatch.setattr(mlflow.MlflowClient, name, call)

    for name in CALLS:
        wrap(name)
    return calls


def settled_champions(intended: list[int], calls: list[str]) -> bool:
    """Check what the next command finds after a kill; return whether it finished the promotion."""
    finished = "set_registered_model_tag" in calls[:-1]  # the intent was written
    events = registry.history()
    assert [found.version for found in events] == (intended if finished else intended[:-1])
    assert aliases()["champion"] == events[-1].version
    with connected() as client:
        model = client.get_registered_model(NAME)
        assert "secondeye.pending" not in model.tags
        assert not finished or model.description == to_markdown(read_events(client))
    return finished


def test_a_promotion_killed_at_any_step_is_finished_or_undone(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champions = [1, 2, 3]
    for step in range(1, 7):  # intent, two aliases, event, description, end of the intent
        target = champions[-1] % 3 + 1
        with monkeypatch.context() as patched:
            calls = kill_at(patched, step)
            with pytest.raises(Killed):
                registry.promote(target, expected=champions[-1], why="")
        if settled_champions([*champions, target], calls):
            champions.append(target)
    assert len(champions) == 3 + 5


@pytest.mark.slow(seconds=5)
@pytest.mark.parametrize("step", range(1, 13))
def test_a_registration_killed_at_any_step_is_finished_or_undone(
    with_registry: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    registry.promote(make_version("a"), expected=None, why="first")
    bundle = make_bundle(with_registry, "b")
    with monkeypatch.context() as patched:
        calls = kill_at(patched, step)
        with pytest.raises(Killed):
            registry.register_and_promote(bundle, NOTHING, expected=1, why="better")
    if not settled_champions([1, 2], calls):
        assert registry.register_and_promote(bundle, NOTHING, expected=1, why="again") == 2
    assert aliases() == {"champion": 2, "challenger": 1}


def test_fetching_the_champion_finishes_a_killed_promotion(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        kill_at(patched, 2)  # the first call is the intent
        with pytest.raises(Killed):
            registry.promote(1, expected=3, why="")
    assert fetch_version(f"models:/{NAME}@champion").version == aliases()["champion"] == 1


def test_an_unfinished_promotion_of_a_version_deleted_since_is_dropped(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        kill_at(patched, 2)
        with pytest.raises(Killed):
            registry.promote(1, expected=3, why="")
    with connected() as client:
        client.delete_model_version(NAME, "1")
    assert registry.champion() == 3 and len(registry.history()) == 3

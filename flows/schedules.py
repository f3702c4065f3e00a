"""Which flows run by schedule: switch one on or off, and say when each runs next.

    ./run arm training         python flows/schedules.py arm training
    ./run disarm training

The choice is kept in .prefect/armed.json and takes precedence over `active` in prefect.yaml. It applies at
once if `./run serve` runs, else when it starts.
"""

import argparse
import asyncio
import json
import sys
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic
from secondeye.system.process import is_dir_locked

PROJECT = Path(__file__).resolve().parent.parent
_TIMEOUT_S = 60


def main() -> None:
    """Switch one schedule on or off and print all."""
    parser = argparse.ArgumentParser(description="Switch the schedule of a flow on or off")
    parser.add_argument("action", choices=["arm", "disarm"])
    parser.add_argument("name", help="a deployment in prefect.yaml")
    arguments = parser.parse_args()
    try:
        choose(arguments.name, arguments.action == "arm")
        if (api := running_api()) is None:
            print(f"{arguments.name}: {arguments.action}ed when ./run serve starts")
        else:
            print("\n".join(apply(api)))
    except (UserError, OSError) as error:
        sys.exit(f"schedules: {error}")


def choose(name: str, armed: bool) -> None:
    """Keep the choice for a deployment. Raises UserError if prefect.yaml has none of this name."""
    known = [deployment["name"] for deployment in deployments()]
    if name not in known:
        raise UserError(f"{name}: not in prefect.yaml, which has {', '.join(known)}")
    _choices_file().parent.mkdir(exist_ok=True)
    write_atomic(_choices_file(), json.dumps(_choices() | {name: armed}, indent=1, sort_keys=True) + "\n")


def deployments() -> list[dict[str, Any]]:
    """Return the deployments in prefect.yaml."""
    path = PROJECT / "prefect.yaml"
    try:
        content: dict[str, list[dict[str, Any]]] = YAML(typ="safe").load(path)
        return [each | {"name": str(each["name"])} for each in content["deployments"] if each["entrypoint"]]
    except (YAMLError, TypeError, KeyError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error


def remember_api(api: str) -> None:
    """Record the address of the server of this project, for `arm` and `disarm`."""
    write_atomic(_api_file(), f"{api}\n")


def running_api() -> str | None:
    """Return the address of the server of this project; None if `./run serve` does not run."""
    home = _api_file().parent
    if not _api_file().exists() or not is_dir_locked(home):
        return None
    return _api_file().read_text().strip()


def apply(api: str) -> list[str]:
    """Apply the choices to the deployments of a server, and return one line for each schedule.

    Deployments that are no longer in prefect.yaml are deleted. Raises OSError if the server does not answer.
    """
    choices, lines, known = _choices(), [], [deployment["name"] for deployment in deployments()]
    for deployment in sorted(_request(f"{api}/deployments/filter", {}), key=lambda each: each["name"]):
        name = deployment["name"]
        if name not in known:
            _request(f"{api}/deployments/{deployment['id']}", {}, "DELETE")
            continue
        for schedule in deployment["schedules"]:
            active = choices.get(name, schedule["active"])
            if active != schedule["active"]:
                url = f"{api}/deployments/{deployment['id']}/schedules/{schedule['id']}"
                _request(url, {"active": active}, "PATCH")
            lines.append(describe(name, schedule["schedule"], active))
    return lines


def describe(name: str, schedule: dict[str, Any], active: bool) -> str:
    """Return whether a schedule is armed, and when it fires next, in its time zone."""
    if not active:
        return f"  off    {name:12} switch it on with ./run arm {name}"
    return f"  armed  {name:12} next {_next(schedule):%Y-%m-%d %H:%M %Z}"


def _next(schedule: dict[str, Any]) -> datetime:
    from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

    kinds = {"cron": CronSchedule, "interval": IntervalSchedule, "rrule": RRuleSchedule}
    kind = next(kind for name, kind in kinds.items() if name in schedule)
    (date,) = asyncio.run(kind(**schedule).get_dates(1))
    return date


def _request(url: str, content: dict[str, object], method: str = "POST") -> Any:
    body = json.dumps(content).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        return json.loads(answer.read() or "null")


def _choices() -> dict[str, bool]:
    file = _choices_file()
    try:
        return dict(json.loads(file.read_text())) if file.exists() else {}
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); delete it, and arm or disarm again") from error


def _api_file() -> Path:
    return PROJECT / ".prefect" / "api"


def _choices_file() -> Path:
    return PROJECT / ".prefect" / "armed.json"


if __name__ == "__main__":
    main()

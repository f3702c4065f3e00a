"""Tell somebody when a flow fails and when the champion changes.

SECONDEYE_NOTIFY names where: an address (http:// or https://), which receives a POST of {"text": MESSAGE} as
Slack, Mattermost and Teams expect it, or a command, which gets the message as its last argument.
"""

import json
import os
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from commands import SECONDEYE, CommandFailed, command_lines, run_log

from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic

VARIABLE = "SECONDEYE_NOTIFY"
_ANNOUNCED = Path(".prefect/announced")  # the number of the newest event that was announced
_TIMEOUT_S = 30


def notify(message: str, log: Callable[[str], None] = print) -> bool:
    """Send a message, if there is somewhere to send it; return whether it was sent. A failure is logged."""
    where = os.environ.get(VARIABLE, "").strip()
    if not where:
        return False
    try:
        _send(where, f"secondeye: {message}")
    except (OSError, HTTPException, ValueError, subprocess.SubprocessError) as error:
        log(f"{VARIABLE}: the message could not be sent ({_describe(error)}): {message}")
        return False
    return True


def report_failure(flow: Any, flow_run: Any, state: Any) -> None:
    """Report a failed or crashed flow run. A hook of Prefect, for `on_failure` and `on_crashed`."""
    if not os.environ.get(VARIABLE):
        return
    from httpx import HTTPError
    from prefect import get_client
    from prefect.exceptions import PrefectException
    from prefect.utilities.urls import url_for

    name = flow_run.name
    # The worker, which reports a crash, knows the first name only.
    with suppress(PrefectException, HTTPError), get_client(sync_client=True) as client:
        name = client.read_flow_run(flow_run.id).name
    address = url_for(flow_run) or ""
    reason = str(state.message or "").removeprefix("Flow run encountered an exception: ")
    reason = reason.removeprefix("CommandFailed: ").removeprefix("UserError: ")
    notify(f"{flow.name}, run {name}, {str(state.name).lower()}: {reason} {address}".strip())


HOOKS: dict[str, Any] = {"on_failure": [report_failure], "on_crashed": [report_failure]}


def announce_champion() -> None:
    """Report the newest change of the champion, also one made by hand, unless it was reported before."""
    log = run_log()
    if not os.environ.get(VARIABLE):
        return
    try:
        printed = "\n".join(command_lines([*SECONDEYE, "model", "history", "--json"]))
        events = json.loads(printed[max(0, printed.find("[")) :])  # after warnings
    except (CommandFailed, json.JSONDecodeError) as failure:
        log(f"the history of champions could not be read: {failure}")
        return
    changes = [event for event in events if event["event"] != "vetoed"]
    announced = _ANNOUNCED.read_text().strip() if _ANNOUNCED.exists() else ""
    if changes and str(changes[-1]["number"]) != announced:
        newest = changes[-1]
        before = f", before: {newest['previous']}" if newest["previous"] else ""
        if notify(f"champion: version {newest['version']}{before}, {newest['event']}: {newest['why']}", log):
            _ANNOUNCED.parent.mkdir(exist_ok=True)
            write_atomic(_ANNOUNCED, f"{newest['number']}\n")


def check_setting() -> str:
    """Return whom failures are reported to, without the secret part of an address.

    Raises UserError if the setting is neither an address nor a command.
    """
    where = os.environ.get(VARIABLE, "").strip()
    if not where:
        return f"nobody; set {VARIABLE} to a webhook's address or a command"
    if _is_address(where):
        host = where.split("/")[2]
        if "@" in host or any(character.isspace() for character in where):
            raise UserError(
                f"{VARIABLE}: an address can hold neither a user nor a space; use a command instead"
            )
        return host
    try:
        return shlex.split(where)[0]
    except ValueError as error:
        raise UserError(f"{VARIABLE}: cannot be read as a command: {error}") from error


def _send(where: str, text: str) -> None:
    if _is_address(where):
        body = json.dumps({"text": text}).encode()
        request = urllib.request.Request(where, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            return
    subprocess.run(
        [*shlex.split(where), text],
        check=True,
        timeout=_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def _is_address(where: str) -> bool:
    return where.startswith(("http://", "https://"))


def _describe(error: Exception) -> str:
    """Return the reason without the address or the command, which often contain a secret."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit code {error.returncode}"
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}"
    if isinstance(error, urllib.error.URLError):
        return f"{type(error.reason).__name__}: {error.reason}"
    return type(error).__name__

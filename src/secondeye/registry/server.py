"""Connect to MLflow: the database of this project, or the server in MLFLOW_TRACKING_URI.

.mlflow/           in the working directory; git-ignored
  mlflow.db        runs and models, unless MLFLOW_TRACKING_URI is set
  artifacts/       their files
  models/          downloaded versions, see secondeye.registry.models
"""

import fcntl
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from secondeye.system.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "secondeye"
_HEALTH_TIMEOUT_SECONDS = 3.0  # for the answer of a server
# Set before mlflow is imported: no telemetry, and short retries so that a lost server is noticed soon.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class ServerUnreachable(UserError):
    """The MLflow server does not answer."""


def home() -> Path:
    """Return the folder of the project's own database."""
    return Path(".mlflow").absolute()


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, or the URI of the project's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


@contextmanager
def connected() -> Iterator["MlflowClient"]:
    """Yield an MLflow client; only one process per machine holds one at a time.

    Raises ServerUnreachable if the server does not answer, at the start or later, and UserError with the
    first line of MLflow's message if it answers with an error.
    """
    uri = tracking_uri()
    _require_server(uri)
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with _exclusive():
        try:
            yield MlflowClient(tracking_uri=uri, registry_uri=uri)
        except (MlflowException, OSError) as error:
            _require_server(uri)
            if isinstance(error, MlflowException):
                raise UserError(f"MLflow at {redact_password(uri)}: {str(error).splitlines()[0]}") from error
            raise


def experiment_of(client: "MlflowClient") -> str:
    """Return the id of the experiment, which is created if missing.

    Raises UserError if it was deleted, or if its files are elsewhere because the project was moved.
    """
    uri = client.tracking_uri
    artifacts = _artifacts_of(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        location = artifacts.as_uri() if artifacts else None  # a server chooses its own location
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))
    if experiment.lifecycle_stage == "deleted":
        raise UserError(
            f"MLflow at {redact_password(uri)}: experiment {EXPERIMENT} was deleted; restore it with "
            f"`mlflow experiments restore -x {experiment.experiment_id}`"
        )
    stored = unquote(urlparse(experiment.artifact_location).path)
    if artifacts and stored != str(artifacts):
        raise UserError(
            f"{artifacts.parent}: has been moved, its runs keep their files in {stored}; move it back, "
            "or delete it and run `secondeye model publish`"
        )
    return str(experiment.experiment_id)


def _artifacts_of(uri: str) -> Path | None:
    """Return the artifact folder beside an SQLite database, or None for a server."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).absolute().parent / "artifacts"


@contextmanager
def _exclusive() -> Iterator[None]:
    """Wait for other processes that publish from this folder; two at once would log everything twice."""
    home().mkdir(parents=True, exist_ok=True)
    handle = os.open(home(), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _require_server(uri: str) -> None:
    """Raise ServerUnreachable if a server does not answer; a database is always reachable."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_HEALTH_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise _unreachable(uri, f"HTTP {error.code}") from error
    except (OSError, ValueError) as error:  # refused, unknown host, timeout, invalid URI
        raise _unreachable(uri, str(getattr(error, "reason", error))) from error


def _unreachable(uri: str, reason: str) -> ServerUnreachable:
    return ServerUnreachable(
        f"MLflow at {redact_password(uri)} cannot be reached ({reason}); runs stay in .runs, "
        "publish them later with `secondeye model publish`"
    )


def redact_password(uri: str) -> str:
    """Return the URI without its password."""
    parts = urlparse(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.password else uri

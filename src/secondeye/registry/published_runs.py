"""List the runs that MLflow has."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from secondeye.registry.publish import KEY
from secondeye.registry.server import EXPERIMENT, connected, database_file, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PAGE = 1000


def published_runs() -> dict[str, bool]:
    """Return run key -> finished for all runs; folders of finished ones can be deleted.

    Raises ServerUnreachable and UserError.
    """
    database = database_file(tracking_uri())
    if database and not database.exists():
        return {}  # connecting would create the database
    with connected() as client:
        return {
            run.data.tags[KEY]: run.info.status == "FINISHED"
            for run in all_runs(client)
            if KEY in run.data.tags
        }


def all_runs(client: "MlflowClient") -> "Iterator[Run]":
    """Yield the runs of all our experiments, the newest first."""
    named = client.search_experiments(filter_string=f"name LIKE '{EXPERIMENT}%'")
    experiments, token = [experiment.experiment_id for experiment in named], None
    while experiments:
        page = client.search_runs(experiments, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return

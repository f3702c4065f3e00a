"""List the runs that MLflow has, so that their folders can be deleted."""

from secondeye.registry.publish import KEY
from secondeye.registry.server import connected, database_file, experiment_of, tracking_uri

_PAGE = 1000


def published_runs() -> dict[str, bool]:
    """Return run key -> finished for all runs in MLflow. Raises ServerUnreachable and UserError."""
    database = database_file(tracking_uri())
    if database and not database.exists():
        return {}  # connecting would create the database
    with connected() as client:
        found: dict[str, bool] = {}
        token = None
        experiment = experiment_of(client)
        while True:
            page = client.search_runs([experiment], max_results=_PAGE, page_token=token)
            found |= {run.data.tags.get(KEY, ""): run.info.status == "FINISHED" for run in page}
            token = page.token
            if not token:
                return found

"""List the runs that MLflow has, so that their folders can be deleted."""

from secondeye.registry.publish import KEY
from secondeye.registry.server import EXPERIMENT, connected, database_file, tracking_uri

_PAGE = 1000


def published_runs() -> dict[str, bool]:
    """Return run key -> finished for all runs in MLflow. Raises ServerUnreachable and UserError."""
    database = database_file(tracking_uri())
    if database and not database.exists():
        return {}  # connecting would create the database
    with connected() as client:
        named = client.search_experiments(filter_string=f"name LIKE '{EXPERIMENT}%'")
        experiments = [experiment.experiment_id for experiment in named]
        found: dict[str, bool] = {}
        token = None
        while experiments:
            page = client.search_runs(experiments, max_results=_PAGE, page_token=token)
            found |= {
                run.data.tags[KEY]: run.info.status == "FINISHED" for run in page if KEY in run.data.tags
            }
            token = page.token
            if not token:
                break
        return found

"""Which runs MLflow has, so that their folders may go."""

from pathlib import Path

from secondeye.registry.publish import KEY
from secondeye.registry.server import connected, experiment_of, tracking_uri

_PAGE = 1000


def published_runs() -> dict[str, bool]:
    """Keys of the runs in MLflow, and whether they are finished there. Raises ServerUnreachable, Refusal."""
    uri = tracking_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return {}  # asking would make the database
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

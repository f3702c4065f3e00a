"""Take the pictures of docs/tour.md and draw its graph, in a folder in which `./run demo` has run.

    python docs/make_tour.py [--browser /usr/bin/chromium]

Starts MLflow, Prefect and a worker as `./run serve` does, lets the training flow run once, photographs the
pages with headless Chromium, and stops everything.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
IMAGES = PROJECT / "docs" / "images"
MLFLOW, PREFECT = "http://127.0.0.1:5000", "http://127.0.0.1:4200"
WIDTH, HEIGHT = 1600, 1000
BROWSER_OPTIONS = (  # no window, and no connections but those of the page
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)
SETTLE_MS = 60_000  # virtual time in which a page loads its content


def main() -> None:
    """Take all pictures, then write the graph into the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--browser", default="/usr/bin/chromium")
    browser = parser.parse_args().browser
    for needed in ("demo/preview.png", "reports/index.html", ".mlflow/mlflow.db"):
        if not (PROJECT / needed).exists():
            sys.exit(f"make_tour.py: {PROJECT / needed}: missing; run ./run demo first")
    graph = subprocess.run(
        [sys.executable, "-m", "dvc", "dag", "--mermaid"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    save("film", cv2.imread(str(PROJECT / "demo" / "preview.png")))
    photograph(browser, "dataset", (PROJECT / "reports" / "dataset.html").as_uri())
    photograph(browser, "evaluation", (PROJECT / "reports" / "index.html").as_uri())
    server = subprocess.Popen([sys.executable, "flows/serve.py"], cwd=PROJECT)
    try:
        wait_for(f"{MLFLOW}/health")
        wait_for(f"{PREFECT}/api/health")
        first, second = runs_to_compare()
        both = quote(json.dumps([first["run_id"], second["run_id"]]))
        experiment = first["experiment_id"]
        view = "workflowType=machine_learning"  # else MLflow shows its pages for language models
        runs = f"{MLFLOW}/#/experiments/{experiment}/runs"
        photograph(browser, "mlflow_runs", f"{runs}?{view}&compareRunsMode=CHART")
        photograph(browser, "mlflow_run", f"{runs}/{first['run_id']}?{view}")
        photograph(
            browser,
            "mlflow_compare",
            f"{MLFLOW}/#/compare-runs?runs={both}&experiments={quote(json.dumps([experiment]))}&{view}",
        )
        photograph(browser, "mlflow_registry", f"{MLFLOW}/#/models/secondeye?{view}")
        run = run_flow("train-and-promote", "training")
        photograph(browser, "prefect_run", f"{PREFECT}/runs/flow-run/{run}")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
    page = PROJECT / "docs" / "tour.md"
    before, _, rest = page.read_text().partition("```mermaid\n")
    after = rest.partition("```")[2]
    page.write_text(f"{before}```mermaid\n{graph.strip()}\n```{after}")


def post(url: str, content: dict[str, object]) -> Any:
    """Send JSON and return the JSON of the answer."""
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def wait_for(url: str, seconds: float = 180) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > end:
                sys.exit(f"make_tour.py: {url} does not answer")
            time.sleep(1)


def runs_to_compare() -> list[dict[str, Any]]:
    """Return the two trainings of the depth student that the demo made."""
    experiments = post(f"{MLFLOW}/api/2.0/mlflow/experiments/search", {"max_results": 100})["experiments"]
    ids = [found["experiment_id"] for found in experiments]
    found = post(
        f"{MLFLOW}/api/2.0/mlflow/runs/search",
        {"experiment_ids": ids, "filter": "tags.`secondeye.stage` = 'train_depth'", "max_results": 2},
    )
    infos = [run["info"] for run in found.get("runs", [])]
    if len(infos) < 2:
        sys.exit("make_tour.py: MLflow does not have two runs of train_depth; run ./run demo first")
    return infos


def run_flow(flow: str, deployment: str) -> str:
    """Run a deployment until it ends and return the id of its run."""
    deadline = time.monotonic() + 1800  # it trains if the code has changed
    found: list[dict[str, Any]] = []
    while not found:  # serve deploys after the servers are up
        query = {"deployments": {"name": {"any_": [deployment]}}, "flows": {"name": {"any_": [flow]}}}
        found = post(f"{PREFECT}/api/deployments/filter", query)
        if time.monotonic() > deadline:
            sys.exit(f"make_tour.py: Prefect has no deployment {flow}/{deployment}")
        time.sleep(1)
    run = post(
        f"{PREFECT}/api/deployments/{found[0]['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}}
    )
    while True:
        with urllib.request.urlopen(f"{PREFECT}/api/flow_runs/{run['id']}", timeout=60) as answer:
            state = json.load(answer)["state_type"]
        if state in ("COMPLETED", "FAILED", "CRASHED"):
            return str(run["id"])
        if time.monotonic() > deadline:
            sys.exit(f"make_tour.py: the run of {flow} does not end; its state is {state}")
        time.sleep(2)


def photograph(browser: str, name: str, url: str) -> None:
    """Save a page as docs/images/tour_NAME.jpg."""
    with tempfile.TemporaryDirectory() as temporary:
        picture = Path(temporary) / "page.png"
        command = [
            browser,
            *BROWSER_OPTIONS,
            f"--user-data-dir={temporary}/profile",
            f"--window-size={WIDTH},{HEIGHT}",
            f"--virtual-time-budget={SETTLE_MS}",
            f"--screenshot={picture}",
            url,
        ]
        subprocess.run(
            command, check=True, capture_output=True, timeout=180, env=os.environ | {"HOME": temporary}
        )
        save(name, cv2.imread(str(picture)))


def save(name: str, image: np.ndarray) -> None:
    """Write a picture as JPEG, at most WIDTH px wide."""
    scale = min(1.0, WIDTH / image.shape[1])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(IMAGES / f"tour_{name}.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 82])


if __name__ == "__main__":
    main()

"""Log the load of this machine to a run with MLflow's own monitor: processor, memory, disk, network, GPUs."""

import logging
from typing import TYPE_CHECKING

from secondeye.registry.server import tracking_uri

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor


def start_system_monitor(run_id: str) -> "SystemMetricsMonitor":
    """Start to log `system/...` every MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL seconds (10) in a thread.

    It ends by itself if MLflow cannot be used.
    """
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(
        logging.ERROR
    )  # else a warning when it ends by itself
    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=tracking_uri())
    monitor.start()
    return monitor

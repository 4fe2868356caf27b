"""Turn off the telemetry of libraries, before any of them is imported."""

import os

# Variables that the user has set are kept.
OFF = {
    "DO_NOT_TRACK": "1",  # mlflow, huggingface_hub, schemathesis and others
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OTEL_SDK_DISABLED": "true",  # fastapi and mlflow export traces if the environment names a collector
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_ERROR_REPORTING": "false",  # crash reports; the logger itself is offline (conf/logger/wandb.yaml)
}


def off() -> None:
    """Turn telemetry off in this process and its children."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)

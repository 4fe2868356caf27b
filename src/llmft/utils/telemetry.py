"""Libraries that would tell their makers how they are used -> told not to, before any of them is imported."""

import os

# What a user has set stays as it is.
OFF = {
    "DO_NOT_TRACK": "1",  # mlflow, huggingface_hub, schemathesis and others
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OTEL_SDK_DISABLED": "true",  # what fastapi and mlflow would export, if a collector is named in the environment
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_ERROR_REPORTING": "false",  # crash reports; the logger itself is offline (conf/logger/wandb.yaml)
}


def off() -> None:
    """Turn it off in this process and those that it starts."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)

"""TensorBoard: the name of a run, its HParams page and its charts of several curves."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from llmft.config.swept import label
from llmft.utils.tensorboard_events import Summary, add_summary

api, plugin_data = (cast("Any", module) for module in (api_pb2, plugin_data_pb2))  # untyped messages
# Sorted by TensorBoard behind train and val: each is a chart with one point, which the HParams page reads.
OUTCOME, LENGTHS = "with_best_weights", "with_lengths"
# Charts of its Custom Scalars page; "val/loss" alone is on the page of all scalars.
CHARTS = {
    "training": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "perplexity": ["Multiline", ["train/perplexity", "val/perplexity"]],
        "learning rate": ["Multiline", ["train/lr"]],
    }
}


def name_job(cfg: DictConfig, overrides: Sequence[str], keys: Sequence[str]) -> None:
    """Let the events of a sweep's job be in a folder that is named by what differs: TensorBoard names runs by their folders.

    Args:
        cfg: The job's config; the ``version`` of its TensorBoard logger is set, unless it has one.
        overrides: Of the job.
        keys: The keys that the sweep varies.
    """
    for name, logger in (cfg.get("logger") or {}).items():
        if logger and str(logger.get("_target_")).endswith("TensorBoardLogger") and logger.get("version") == "":
            OmegaConf.update(cfg, f"logger.{name}.version", label(overrides, keys))


def log_charts(logger: TensorBoardLogger) -> None:
    """Set the charts of the Custom Scalars page."""
    logger.experiment.add_custom_scalars(CHARTS)


def log_hparams(
    logger: TensorBoardLogger,
    settings: Mapping[str, Any],
    differing: Sequence[str],
    metrics: Mapping[str, float],
    *,
    only_differing: bool,
) -> None:
    """Log a run's settings and final metrics for the HParams page, which shows the first five columns of each.

    TensorBoard takes the columns of the first run that it finds.

    Args:
        logger: TensorBoard's.
        settings: Values by key; None for what a run does not have.
        differing: Keys whose columns come first; TensorBoard sorts the others by name behind them.
        metrics: Final values by name (``val/loss``, ``test/chrf``), in the order of their columns.
        only_differing: Leave out the columns of other keys.
    """
    tags = {f"{OUTCOME}/{name.replace('/', '_')}": name for name in metrics}
    infos = [
        api.HParamInfo(name=key, type=_type(value), differs=key in differing)
        for key, value in settings.items()
        if key in differing or not only_differing
    ]
    columns = [
        api.MetricInfo(name=api.MetricName(tag=tag), display_name=name.replace("/", " ")) for tag, name in tags.items()
    ]
    started = plugin_data.SessionStartInfo()
    for key, value in settings.items():
        if value is not None:
            _set(started.hparams[key], value)
    experiment = api.Experiment(hparam_infos=infos, metric_infos=columns)
    ended = plugin_data.SessionEndInfo(status=api.STATUS_SUCCESS)
    for tag, content in (
        (metadata.EXPERIMENT_TAG, plugin_data.HParamsPluginData(experiment=experiment)),
        (metadata.SESSION_START_INFO_TAG, plugin_data.HParamsPluginData(session_start_info=started)),
        (metadata.SESSION_END_INFO_TAG, plugin_data.HParamsPluginData(session_end_info=ended)),
    ):
        add_summary(logger, [Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(content))])
    logger.log_metrics({tag: metrics[name] for tag, name in tags.items()}, step=0)


def _type(value: Any) -> Any:
    if isinstance(value, bool):
        return api.DATA_TYPE_BOOL
    return api.DATA_TYPE_STRING if isinstance(value, str) else api.DATA_TYPE_FLOAT64


def _set(entry: Any, value: Any) -> None:
    if isinstance(value, bool):
        entry.bool_value = value
    elif isinstance(value, int | float):
        entry.number_value = value
    else:
        entry.string_value = str(value)

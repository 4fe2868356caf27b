"""Schema of the config: a pydantic model for each section and command, and rules between keys."""

from llmft.config.schema.command import Command
from llmft.config.schema.commands import (
    COMMANDS,
    AnswerConfig,
    ChatConfig,
    EstimateConfig,
    EvaluateConfig,
    PreviewConfig,
    ProveConfig,
    ReplayConfig,
    ReportConfig,
    RestoreConfig,
    RunOrModel,
    SchemaConfig,
    ServeConfig,
    TrainConfig,
)
from llmft.config.schema.export import ExportConfig
from llmft.config.schema.rules import RULES, overlaps
from llmft.config.schema.section import Section

__all__ = [
    "COMMANDS",
    "RULES",
    "AnswerConfig",
    "ChatConfig",
    "Command",
    "EstimateConfig",
    "EvaluateConfig",
    "ExportConfig",
    "PreviewConfig",
    "ProveConfig",
    "ReplayConfig",
    "ReportConfig",
    "RestoreConfig",
    "RunOrModel",
    "SchemaConfig",
    "Section",
    "ServeConfig",
    "TrainConfig",
    "overlaps",
]

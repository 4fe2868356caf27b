"""Command lines on which the storm (tests/robustness/storm) once found a fault. A found fault is added here."""

from tests.robustness.storm.storm import Case

FOUND = [
    Case("answer", "stdout closed"),
    Case("answer", "stdout without reader"),
    Case("preview", "both without reader"),
    Case("train", "stdout full"),
    Case("sweep", "user without home"),
    Case("train", "nameless process"),  # nltk, which cannot be imported without a home
    Case("answer base", "file size"),  # safetensors' own exception for an error of the disk
    Case("sweep", more=("++logger.tensorboard.save_dir=true",)),  # refused by a class of Lightning's
    Case("sweep", "full output"),  # multirun.yaml, which Hydra writes
]

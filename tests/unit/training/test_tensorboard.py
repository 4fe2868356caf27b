"""TensorBoard's folder of a sweep's job, which is the name of its run."""

from omegaconf import OmegaConf

from llmft.training.tensorboard import name_job


def test_the_events_of_a_job_are_in_a_folder_named_by_what_differs():
    logger = {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "version": ""}
    cfg = OmegaConf.create({"logger": {"tensorboard": logger, "own": {**logger, "version": "mine"}, "none": None}})
    name_job(cfg, ["optim.lr=0.1", "seed=3"], ["optim.lr"])
    assert cfg.logger.tensorboard.version == "lr=0.1"
    assert cfg.logger.own.version == "mine"

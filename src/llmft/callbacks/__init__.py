"""Lightning callbacks, one topic each: checkpoints, logging, monitoring, early stopping."""

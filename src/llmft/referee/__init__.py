"""The first optimizer steps of a training, computed again in plain torch and float64; shares no code with the training."""

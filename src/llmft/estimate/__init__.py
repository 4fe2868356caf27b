"""What a training will need, before anything is loaded: memory, steps, time."""

"""One worry each: what watches, logs or stops a training."""

"""Retention: how far a training has changed a model on general rows that it was not trained on."""

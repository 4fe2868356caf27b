"""Export a run: weights, model card, checksums, zip archive, Hub upload; and unpack such an archive."""

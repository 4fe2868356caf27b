"""The verdict of a run: one headline in one of three colors, and what qualifies it."""

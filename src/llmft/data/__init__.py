"""The data sets: what a row of each means."""

"""A run in a notebook: its tables as data frames, its curves as a figure, its summary as HTML."""

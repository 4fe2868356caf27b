"""HTML report of a run with figures and tables, and a leaderboard of many runs."""

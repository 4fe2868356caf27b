"""A run directory -> a page, pictures and tables; many -> a leaderboard."""

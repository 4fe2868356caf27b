"""Messages -> prompt text -> token ids and labels."""

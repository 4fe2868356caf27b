"""Tools that know nothing of fine-tuning: files, text, console, errors, ranks, locks, memory."""

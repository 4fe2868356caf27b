"""One screen per command."""

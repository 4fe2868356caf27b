"""Rows -> validated, encoded and split examples in Arrow files."""

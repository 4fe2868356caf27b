"""The forms of an export: one module each, with ``write(source, folder)``."""

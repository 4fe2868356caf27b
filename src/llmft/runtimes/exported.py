"""``passport.json`` of an exported folder, read again: what ``answer`` and ``evaluate`` need to use it."""

NAME = "passport.json"

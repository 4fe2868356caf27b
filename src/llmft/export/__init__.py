"""A trained run -> what is handed to others: weights, card, checksums, archive, Hub; and an archive back to a folder."""

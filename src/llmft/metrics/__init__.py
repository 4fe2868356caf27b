"""Answers and references -> scores with confidence intervals."""

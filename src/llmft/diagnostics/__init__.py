"""Why a training broke: forward traces, idle weights, post-mortem reports."""

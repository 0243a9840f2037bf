"""Exit codes of the commands."""

DONE, PARTLY, REFUSED, INTERRUPTED = 0, 1, 2, 130
"""INTERRUPTED is that of Ctrl-C; other signals have others, see `interruption`."""

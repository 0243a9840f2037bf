"""Exit codes of the commands."""

DONE, PARTLY, REFUSED, INTERRUPTED = 0, 1, 2, 130

"""What each command is asked for: one dataclass is its Python plan, its TOML file and its options.

Nothing here loads torch, so that `--help` answers at once.
"""

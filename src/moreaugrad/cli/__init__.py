"""The command line. Nothing heavy is imported before a command needs it."""


def main(arguments: list[str] | None = None) -> None:
    """Runs a command and exits: with 0, or with a code that `--help` explains."""
    # Within the function: an interruption while the modules are imported is one line too.
    from moreaugrad.cli.interruption import leaving

    with leaving():
        from moreaugrad.cli.entry import main as run

        run(arguments)


__all__ = ["main"]

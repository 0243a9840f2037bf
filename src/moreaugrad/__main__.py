"""`python -m moreaugrad`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts the working folder first; what lies there is nobody's library. A factory of it
    # that a command names is imported all the same, see `models.sources`.
    if not sys.flags.safe_path and Path(sys.path[0]).absolute() == Path.cwd():
        del sys.path[0]

    from moreaugrad.cli import main

    main()

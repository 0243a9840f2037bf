"""`python -m moreaugrad`."""

from moreaugrad.cli import main

if __name__ == "__main__":
    main()

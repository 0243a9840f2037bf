"""The live explorer: maps of one image that are refined while their settings are changed."""

from importlib.resources import files


def static(name: str) -> bytes:
    """A file of the page."""
    return files(__name__).joinpath("static", name).read_bytes()

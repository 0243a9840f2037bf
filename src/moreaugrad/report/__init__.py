"""Pages that show explanations: one self-contained HTML file each."""

from moreaugrad.report.content import Page, Section, Sweep, Tile
from moreaugrad.report.page import render_page, write_page

__all__ = ["Page", "Section", "Sweep", "Tile", "render_page", "write_page"]

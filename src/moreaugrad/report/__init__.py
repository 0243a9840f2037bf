"""Pages that show explanations: one self-contained HTML file each."""

from moreaugrad.report.content import Answer, Chart, Entry, Page, Section, Sweep, Table, Tile
from moreaugrad.report.page import render_page, write_page

__all__ = [
    "Answer",
    "Chart",
    "Entry",
    "Page",
    "Section",
    "Sweep",
    "Table",
    "Tile",
    "render_page",
    "write_page",
]

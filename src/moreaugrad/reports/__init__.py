"""Pages that show explanations: one HTML file each, with a folder of images where it is large."""

from moreaugrad.reports.content import Answer, Chart, Entry, Page, Section, Sweep, Table, Tile
from moreaugrad.reports.page import page_files, render_page, write_page

__all__ = [
    "Answer",
    "Chart",
    "Entry",
    "Page",
    "Section",
    "Sweep",
    "Table",
    "Tile",
    "page_files",
    "render_page",
    "write_page",
]

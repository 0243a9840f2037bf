"""Maps as images: reduction, percentile clip, colormap, and PNG files that keep the settings."""

from moreaugrad.pictures.levels import PALETTES as PALETTES
from moreaugrad.pictures.levels import SIGNED_PALETTES as SIGNED_PALETTES
from moreaugrad.pictures.levels import colour_stops as colour_stops
from moreaugrad.pictures.levels import describe as describe
from moreaugrad.pictures.levels import normalise as normalise
from moreaugrad.pictures.levels import palette as palette
from moreaugrad.pictures.levels import reduce as reduce
from moreaugrad.pictures.png import png_bytes as png_bytes
from moreaugrad.pictures.png import read_settings as read_settings
from moreaugrad.pictures.render import Picture as Picture
from moreaugrad.pictures.render import Scale as Scale
from moreaugrad.pictures.render import Style as Style
from moreaugrad.pictures.render import as_photo as as_photo
from moreaugrad.pictures.render import draw as draw
from moreaugrad.pictures.render import heatmap as heatmap
from moreaugrad.pictures.render import masked as masked
from moreaugrad.pictures.render import overlay as overlay
from moreaugrad.pictures.render import photo as photo

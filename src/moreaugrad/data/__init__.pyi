from .arrays import ArrayFile as ArrayFile, read_array as read_array
from .augment import Augment as Augment
from .catalogue import LAYOUTS as LAYOUTS
from .cells import Cells as Cells
from .dataset import DataSet as DataSet, Files as Files, Item as Item
from .examples import Examples as Examples, open_examples as open_examples, split_off as split_off
from .images import find_images as find_images, load_image as load_image
from .layouts import open_dataset as open_dataset
from .loading import Batch as Batch, Loader as Loader, prepare as prepare
from .scans import Geometry as Geometry
from .tree import Tree as Tree, open_tree as open_tree

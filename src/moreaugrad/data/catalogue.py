"""Layouts of data sets on disk, by name. A new layout is one function and one row here."""

from __future__ import annotations

from moreaugrad.registry import Registry, Row

LAYOUTS = Registry(
    "layout",
    {
        "cub": Row("moreaugrad.data.published:read_cub", "CUB-200-2011, with gaze maps"),
        "cifar10": Row("moreaugrad.data.published:read_cifar10", "CIFAR-10 in its Python version"),
        "tiny-imagenet": Row("moreaugrad.data.published:read_tiny_imagenet", "Tiny-ImageNet"),
        "listed": Row("moreaugrad.data.layouts:read_listed", "images listed in a table"),
        "imagenet": Row(
            "moreaugrad.data.published:read_imagenet",
            "ImageNet and Imagenette: folders of WordNet numbers, or the flat validation set",
        ),
        "folders": Row("moreaugrad.data.layouts:read_folders", "a folder for each class"),
    },
)
"""Readers `(tree, split) -> DataSet or None`, tried in this order; None means that the files are in
another layout."""

"""The live explorer: maps of one image that are refined while their settings are changed."""

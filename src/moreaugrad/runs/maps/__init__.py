"""Maps of images by methods, perhaps under attacks: explain, compare, sweep and evaluate."""

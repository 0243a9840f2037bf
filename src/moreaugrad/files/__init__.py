"""Files: written as a whole, read within bounds, whoever wrote or named them."""

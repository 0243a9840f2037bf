"""Studies that train networks again and again: DiffROAR, stability, permuted labels."""

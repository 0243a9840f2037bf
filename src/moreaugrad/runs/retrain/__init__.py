"""Studies that train networks again."""

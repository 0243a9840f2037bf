"""Files: whole when written, bounded when read, by names of anybody."""

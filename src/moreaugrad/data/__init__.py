"""Pictures: those on disk, and synthetic cells whose true explanation is known."""

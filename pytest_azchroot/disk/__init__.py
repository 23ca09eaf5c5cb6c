"""Disk image files: formats, copies, the working disk, and how a file gets its final name."""

"""hsmfs: one namespace over fast disk, disk and write-once discs in a robotic library."""

__version__ = "0.1.0"

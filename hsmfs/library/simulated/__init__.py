"""A library of discs that are files: the same behaviour, delays and faults, without the machine."""

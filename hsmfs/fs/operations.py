"""The table of handlers that pyfuse3 calls: the groups of handlers, put together.

Thin on purpose: a handler turns a request into calls of the catalog and of `Files`, and holds
neither SQL nor policy.
"""

from __future__ import annotations

from .attributes import Attributes
from .directories import Directories
from .files import OpenFiles
from .names import Names
from .xattrs import Xattrs


class Operations(Names, Attributes, OpenFiles, Directories, Xattrs):
    """All requests of the mount."""

"""What makes the archive admissible: the compliance clock, the audit log, retention, legal holds.

`Trust` puts them together; docs/retention.md and docs/audit.md say what they promise.
"""

from .trust import Trust

__all__ = ["Trust"]

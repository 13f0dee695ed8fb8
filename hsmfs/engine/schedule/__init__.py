"""Who gets which drive next: pure rules, with no I/O and no clock of their own.

The daemon's engine and the simulator (hsmfs/simulate) both decide by this package alone; what it
does and why is in docs/scheduler.md. Times are seconds of the caller's clock.
"""

from .board import Board
from .choose import Effort, fewest_exchanges
from .configured import rules
from .order import DiscOrder
from .picture import (
    Action,
    Assign,
    ClaimView,
    Decision,
    DriveView,
    Purpose,
    PutAway,
    PutBack,
    Yield,
)
from .rules import ClassRule, Rules

__all__ = [
    "Action",
    "Assign",
    "Board",
    "ClaimView",
    "ClassRule",
    "Decision",
    "DiscOrder",
    "DriveView",
    "Effort",
    "Purpose",
    "PutAway",
    "PutBack",
    "Rules",
    "Yield",
    "fewest_exchanges",
    "rules",
]

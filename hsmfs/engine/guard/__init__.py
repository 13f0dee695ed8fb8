"""The storm guard: whether, and how urgently, a program's read may bring a disc in.

Rules (rules.py) over who asks and how often (windows.py); guard.py asks them, keeps the report and
changes them live. What happens to recalls in the slow lane is the job of engine/slow_lane.py.
"""

from .guard import Guard, Verdict
from .rules import GuardFile, Mode, Outcome, Rule

__all__ = ["Guard", "GuardFile", "Mode", "Outcome", "Rule", "Verdict"]

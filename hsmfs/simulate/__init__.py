"""Replays traces of requests against a described library, with the daemon's own decisions.

No byte is moved and no clock is waited for: days of requests take seconds. The timing is that of
the simulated library, the decisions are those of `engine.schedule`. See docs/scheduler.md.
"""

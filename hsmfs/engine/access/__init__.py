"""Who may ask the API for what: roles, tokens, rates, and the second person."""

from .access import Access
from .people import Identity, Peer, Role

__all__ = ["Access", "Identity", "Peer", "Role"]

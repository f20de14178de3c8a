"""What the core needs from the outside, in the core's words: one Protocol per need.

Every guarantee written here is checked by a suite under ``tests/contract`` that all adapters pass. Adapters inherit
from these classes, so that a forgotten method fails at construction; an embedder's own class may fit structurally.
All methods may raise :class:`~sessions_core.errors.UnavailableError`; then the effect is unknown.
"""

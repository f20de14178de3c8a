"""Finding the agents that the command line names."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType, TracebackType

from sessions_core.agents import Agents
from sessions_core.errors import InvalidError

OPTION = "--agents"
NONE = "none"


def load_agents(path: str) -> Agents:
    """Import the agents named ``module:attribute``; ``none`` names none. The current directory is on the path from then on.

    Raises:
        InvalidError: Not of this form, no such module or attribute, a module that fails, or no ``Agents``.
    """
    if path == NONE:
        return Agents()
    module_name, colon, attribute = path.partition(":")
    if not (colon and attribute.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise InvalidError(OPTION, f"must be module:attribute, not {path!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _import(module_name)
    found = getattr(module, attribute, None)
    if found is None:
        raise InvalidError(OPTION, f"names {attribute!r}, which module {module_name} does not have")
    if not isinstance(found, Agents):
        raise InvalidError(OPTION, f"names a {type(found).__name__}, not an Agents")
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise InvalidError(OPTION, f"names module {name}, which cannot be found") from None
        _show(error)
        raise InvalidError(OPTION, f"names module {name}, which failed as it was imported (see above)") from error


def _show(error: Exception) -> None:
    """Print the traceback from the user's module on."""
    frames: TracebackType | None = error.__traceback__
    while frames is not None and (frames.tb_frame.f_code.co_filename.startswith("<frozen") or _is_ours(frames)):
        frames = frames.tb_next
    traceback.print_exception(error.with_traceback(frames))


def _is_ours(frames: TracebackType) -> bool:
    return frames.tb_frame.f_code.co_filename in (__file__, importlib.__file__)

"""What another process uses, as Linux tells it below ``/proc``."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

import attrs

SPARE_FILES: Final = 100
"""Open files that a process needs besides its readers."""


@attrs.frozen(kw_only=True)
class Memory:
    """Memory of a process in kB.

    Attributes:
        rss: What is in memory.
        pss: The same, with what several processes share divided among them.
        uss: What would be free if this process ended.
    """

    rss: float
    pss: float
    uss: float

    def per_reader(self, before: Memory, readers: int) -> Memory:
        """Return what each of *readers* has added since *before*."""
        return Memory(
            rss=(self.rss - before.rss) / readers,
            pss=(self.pss - before.pss) / readers,
            uss=(self.uss - before.uss) / readers,
        )


def memory(pid: int) -> Memory:
    """Look at the memory of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: float(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return Memory(rss=sizes["Rss"], pss=sizes["Pss"], uss=sizes["Private_Clean"] + sizes["Private_Dirty"])


def cpu_seconds(pid: int) -> float:
    """Return the processor time that all threads of a process have used, in steps of mostly 10 ms."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text.rpartition(")")[2].split()  # from the third on: the second, a name in parentheses, may hold anything
    user, system = fields[11], fields[12]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def readers_allowed(wanted: int) -> int:
    """Let this process, and those it starts, open as many files as may be; return how many of *wanted* readers fit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return wanted if most == resource.RLIM_INFINITY else max(1, min(wanted, most - SPARE_FILES))

"""The peak of a process's memory, as the kernel counts it (Linux).

Not ``ru_maxrss``: that one survives exec, so a child begins with the peak of the process that
started it, and a large test process makes every child look large. psutil does not know the peak.
"""

from pathlib import Path

import psutil

# For a child to run at its end: prints the peak of its own memory in kilobytes.
PRINT_PEAK = """
rows = open("/proc/self/status").read().splitlines()
print(next(int(row.split()[1]) for row in rows if row.startswith("VmHWM")))
"""


def peak() -> int:
    """Return this process's peak since ``forget_peak``, in kilobytes."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("VmHWM"))


def forget_peak() -> int:
    """Start to count anew; return what is in memory now, in kilobytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return int(psutil.Process().memory_info().rss // 1024)

"""The peak of a process's memory, as the kernel counts it (Linux).

Not ``ru_maxrss``: that one survives exec, so a child begins with the peak of the process that
started it, and a large test process makes every child look large.
"""

from pathlib import Path

# For a child to run at its end: prints the peak of its own memory in kilobytes.
PRINT_PEAK = "print(next(int(row.split()[1]) for row in open('/proc/self/status') if row.startswith('VmHWM')))"


def peak() -> int:
    """This process's peak since ``forget_peak``, in kilobytes."""
    return _kilobytes("VmHWM")


def forget_peak() -> int:
    """Begin to count anew; returns what is in memory now, in kilobytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _kilobytes("VmRSS")


def _kilobytes(field: str) -> int:
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith(field))

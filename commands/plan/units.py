"""Units of the planner's tables: counts with decimal prefixes, bytes, durations.

Decimal prefixes throughout, as the makers of accelerators print them: 80 GB are 80 * 10^9 bytes.
"""

COLUMNS = 100
GIGA = 1e9
PREFIXES = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def format_count(value: float, digits: int = 3) -> str:
    """A number with a decimal prefix, such as 405.9G."""
    # What rounds up to a thousand takes the next prefix.
    value = float(f"{value:.{digits}g}")
    for size, letter in PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{letter}" if value / size < 1000 else f"{value / size:.0f}{letter}"
    return f"{value:.{digits}g}"


def format_bytes(value: float) -> str:
    """Bytes in GB, 10^9 bytes."""
    return f"{value / GIGA:,.2f} GB"


def format_duration(seconds: float) -> str:
    """A duration in the largest unit of which there are two."""
    for length, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.2f} ms"

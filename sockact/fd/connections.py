"""Placeholder."""


def connections(fd: int) -> int | None:
    """Count."""
    return 0

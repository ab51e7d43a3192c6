"""Placeholder."""


def flush(fd: int) -> None:
    """Throw away."""

"""Unit files in directories of a search path, and what was read of them."""

from pathlib import Path

from sockact.spec import ServiceSpec, SocketSpec


def write(path: Path, text: str) -> Path:
    """Write a file, with its directory; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def search(*directories: Path) -> dict[str, str]:
    """Return an environment in which units are looked up there."""
    return {"SYSTEMD_UNIT_PATH": ":".join(map(str, directories))}


def marks(spec: ServiceSpec | SocketSpec) -> list[str]:
    """Return the marks that files left as unknown keys, in the order of reading."""
    return [x.message.split("=")[0].removeprefix("unknown key ") for x in spec.diagnostics]

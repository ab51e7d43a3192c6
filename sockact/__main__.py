"""``python -m sockact``, and the ``sockact`` command itself."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    import gc  # noqa: PLC0415

    # A launcher lives for milliseconds: collecting cycles among the modules it has just imported
    # would take a tenth of them.
    gc.disable()
    try:
        from sockact.cli import main as run  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.exit(130)  # as `sockact.cli.exits` has it, which may not be there yet
    run()


if __name__ == "__main__":
    main()

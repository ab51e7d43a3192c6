"""``python -m sockact``, and the ``sockact`` command itself."""

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    import gc  # noqa: PLC0415

    # A launcher lives for milliseconds: collecting cycles among the modules it has just imported
    # would take a tenth of them.
    gc.disable()
    from sockact.cli import main as run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()

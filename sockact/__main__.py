"""``python -m sockact``."""

from sockact.cli import main

if __name__ == "__main__":
    main()

"""Entry point of `python -m secondeye`, which does not depend on the PATH."""

from secondeye.cli import main

if __name__ == "__main__":
    main()

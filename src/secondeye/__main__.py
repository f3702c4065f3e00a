"""`python -m secondeye`: the command line, for a process that must not depend on what is on the PATH."""

from secondeye.cli import main

if __name__ == "__main__":
    main()

"""`python -m reslearn` is `reslearn`."""

import sys

if __name__ == "__main__":
    try:
        from reslearn.cli import main
    except KeyboardInterrupt:  # before `main` can handle it
        sys.exit(130)
    main()

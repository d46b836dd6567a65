"""`python -m reslearn` is `reslearn`."""

from reslearn.cli import main

if __name__ == "__main__":
    main()

"""`python -m indexlab` is the command."""

from indexlab.cli import main

if __name__ == "__main__":
    main()

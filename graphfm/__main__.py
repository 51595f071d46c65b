"""``python -m graphfm``: the command line where its script is not on the path."""

from graphfm.cli import main

if __name__ == "__main__":
    main()

"""``python -m fracspike``: the command line, as ``fracspike`` itself."""

from fracspike.cli import main

if __name__ == "__main__":
    main()

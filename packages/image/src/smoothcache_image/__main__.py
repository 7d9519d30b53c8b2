"""`python -m smoothcache_image`: the command line, in the form that launchers start."""

from smoothcache_image.cli import main

if __name__ == "__main__":
    main()

"""`python -m smoothcache_video`: the command line, in the form that launchers start."""

from smoothcache_video.cli import main

if __name__ == "__main__":
    main()

"""`python -m smoothcache_audio`: the command line, in the form that launchers start."""

from smoothcache_audio.cli import main

if __name__ == "__main__":
    main()

"""Run the command line."""

from tools.evaluate.cli import main

main()

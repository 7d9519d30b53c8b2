"""The demo: the whole way from calibrating to judging, on a small model that is shipped.

`run` goes the way, `pairs` are the plans that it compares with SmoothCache's, `threads` finds how
many CPU threads are the fastest.
"""

from smoothcache_core.cli.demo.run import run_demo as run_demo

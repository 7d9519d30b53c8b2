"""Interfaces of other caches, over this library: code that was written for them runs unchanged.

`smoothcache` is that of Roblox's SmoothCache, `cachify` that of NVIDIA's Cache Diffusion. Only the
import line changes; docs/coming-from.md says what is better here, and what does not exist.
"""

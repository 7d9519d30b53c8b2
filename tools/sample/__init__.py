"""How full models are sampled by a schedule, in code that a user can copy: a script per modality.

`dit`, `open_sora` and `stable_audio` have the same options (`tools/sample/options.py`) beside those
of their own, and do the same with them (`tools/sample/running.py`).
"""

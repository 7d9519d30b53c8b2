"""One evaluation over image, video and audio: `python -m tools.evaluate`.

The shipped models, or any others, go through the same policies at the same budgets; what comes out
is one report. `settings` says what can be asked for, `policies` what is compared, `preparing`
calibrates and plans, `units` measures, one file each, `sections` judges a modality, `tables` go
across modalities, `writing` makes the report and `record` the record that README quotes.
"""

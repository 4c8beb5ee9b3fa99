"""`python -m utils.evaluate`: lmms-eval before and after; `python -m utils.evaluate.offline`: our own data."""

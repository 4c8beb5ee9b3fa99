"""`--rehearse`: a configuration walked through on a machine without GPUs, before it is started on one with them.

The normal launcher runs the normal trainer, with the overrides of `changes.py`, a reduced copy of the model
(`model.py`) and reference answers in half of each group (`answers.py`); `walk.py` goes the way, `report.py` writes the
page that it ends with. docs/rehearsal.md says what it proves and what it does not.
"""

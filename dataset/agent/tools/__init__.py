"""One file per tool; `dataset/agent/registry.py` has a line for each."""

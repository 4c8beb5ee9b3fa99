"""A run as pages that open from disk: `python -m utils.viewer RUN` (docs/viewer.md)."""

"""Command-line tools: `python -m reward explain | audit | bench`."""

"""One file per answer type, each with its VERIFIER; `reward/registry.py` lists them."""

"""Discrepancy-driven curation: measure Pass@1 and Pass@N, keep what a model can but does not reliably solve.

Rows flow one way: `sources` -> `worker` (filter, guard, encode, generate, score) -> `journal` -> `rules` (keep or drop)
-> `writer` (shards, generations, manifest) -> `report`. `pipeline` joins them; `dataset.create` is the command.
"""

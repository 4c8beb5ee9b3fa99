"""From curated shards to rollout-ready rows: schema, prompts, images, encoding, loader, mixture,
inspection.
"""

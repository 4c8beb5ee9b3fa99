"""Conversations with tools: what a call looks like, what runs it, and how its reply becomes tokens (docs/agents.md)."""

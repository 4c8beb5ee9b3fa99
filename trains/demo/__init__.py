"""The demo's warm start, tokenizer and decoder."""

"""Text: tokenizers, and texts and tables in files."""

"""Text in and out: tokenizers, and items from files."""

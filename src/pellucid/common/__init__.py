"""What commands share: pieces of sentences, colours, files."""

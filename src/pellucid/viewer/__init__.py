"""The page on which attention is looked at: in the browser, from one command."""

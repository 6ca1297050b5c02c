"""The page that shows attention: in the browser, in a notebook, or as a file."""

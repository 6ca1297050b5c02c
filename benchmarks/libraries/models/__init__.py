"""Small models of each library; `cases()` of a module here gives those of one library."""

"""How the picture of a script comes about: a board, actors on it, and a function for each scene."""

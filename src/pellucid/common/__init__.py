"""Shared by the packages: wording, colours, drawing, files."""

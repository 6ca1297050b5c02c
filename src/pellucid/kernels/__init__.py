"""Compiled loops in the place of many small operations, optional and chosen by measurement.

What they stand in for is written in torch, next to where they are called, and is their oracle.
"""

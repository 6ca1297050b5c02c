"""The arithmetic of attention, step by step, for people who learn.

A lesson computes a `Walk` (walk.py); `terminal`, `picture` and `to_json` each show any walk.
"""

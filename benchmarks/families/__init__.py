"""Every model family of transformers, watched: which of their attention weights are recorded?"""

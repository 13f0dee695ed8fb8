"""Whether bytes are those that they should be: what clients say of them when they come, and what
was written down when they were archived, compared on disk and on each disc.
"""

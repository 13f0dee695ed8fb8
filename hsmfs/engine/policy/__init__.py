"""Policies: which files are archived, released, demoted or left alone, and when.

`rules` reads and checks the file, `match` decides for one file and says why, `when` decides on the
time, `select` finds the files of a rule in the catalog. `engine.policies` acts on them.
"""

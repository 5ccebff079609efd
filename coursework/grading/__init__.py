"""Grading a class: `coursework assign` makes a release, `coursework grade` judges what comes back.

Learners' code runs in a sandbox (`sandboxed`: its side, `service`: ours) and answers with plain tensors; they are
compared here (`marking`).
"""

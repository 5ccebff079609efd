"""Grading a class: `coursework assign` makes a release, `coursework grade` judges what comes back.

Learners' code runs in a sandbox (`sandbox`, `worker`, `cells`, `withheld`: its side; `service`: ours) and answers with
plain tensors (`wire`); they are compared here (`marking`).
"""

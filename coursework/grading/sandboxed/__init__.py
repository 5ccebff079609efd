"""The sandbox's side of grading: all of it that a learner's process may see.

`worker` forks a process for each exercise, `sandbox` shuts it in, `withheld` takes from it what an answer may not call,
`cells` defines the learner's function, `cases` and `wire` carry arguments in and answers out, `counting` counts calls.
"""

"""Tests of grading: each side of the sandbox, and what comes of a class."""

"""Exercises of lesson 14, fast solvers."""

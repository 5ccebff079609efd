"""Exercises of lesson 01, the score function."""

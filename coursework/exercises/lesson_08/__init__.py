"""Exercises of lesson 08, the reverse SDE."""

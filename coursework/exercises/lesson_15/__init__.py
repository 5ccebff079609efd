"""Exercises of lesson 15, what to train, and how."""

"""Exercises of lesson 13, inverse problems."""

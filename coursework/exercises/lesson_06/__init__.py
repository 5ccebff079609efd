"""Exercises of lesson 06, noise-conditional score networks."""

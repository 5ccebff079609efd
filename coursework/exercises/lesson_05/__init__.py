"""Exercises of lesson 05, Langevin dynamics."""

"""Exercises of lesson 10, likelihood."""

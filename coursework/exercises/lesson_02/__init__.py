"""Exercises of lesson 02, explicit score matching and its implicit form."""

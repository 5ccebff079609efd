"""Exercises of lesson 09, the probability flow."""

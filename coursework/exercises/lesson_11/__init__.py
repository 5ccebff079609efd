"""Exercises of lesson 11, guidance."""

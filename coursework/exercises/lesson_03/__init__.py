"""Exercises of lesson 03, sliced score matching."""

"""Exercises of lesson 07, noising in continuous time."""

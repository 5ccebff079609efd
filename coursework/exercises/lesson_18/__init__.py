"""Exercises of lesson 18, few steps."""

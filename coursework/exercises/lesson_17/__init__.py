"""Exercises of lesson 17, flow matching."""

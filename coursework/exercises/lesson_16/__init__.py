"""Exercises of lesson 16, evaluation."""

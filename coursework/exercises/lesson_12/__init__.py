"""Exercises of lesson 12, DDPM and DDIM."""

"""Exercises of lesson 04, denoising score matching."""

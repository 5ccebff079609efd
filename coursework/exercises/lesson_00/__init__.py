"""The practice exercise of lesson 00."""

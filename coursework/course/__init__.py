"""The course tree and what is done with it: its lessons are found, edited, published, run and shown."""

"""Tests of the exercises and of the engine that checks them."""

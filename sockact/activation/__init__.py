"""A socket set and a program that inherits it, in both directions, and readiness."""

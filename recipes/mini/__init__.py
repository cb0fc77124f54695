"""The recipe of the bundled voice."""

"""What can go wrong in the recipe through its input; everything else is a bug and keeps its own exception."""


class RecipeError(Exception):
    """A setting, a file or a figure of the recipe cannot be used; the message names it, its value and the limit."""

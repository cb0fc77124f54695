"""The languages of the voice; tables count them in this order. Imports nothing: the prepare environment has little."""

LANGUAGES = ("en", "zh")

"""The metrics of a set of clips, by subject. Every module here is imported by the registry on its own."""

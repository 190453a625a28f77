"""The metrics of one clip, by subject. Every module here is imported by the registry on its own."""

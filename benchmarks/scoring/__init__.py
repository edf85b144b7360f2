"""Side-by-side timing of the likelihood engine with what people would use instead; see __main__.py."""

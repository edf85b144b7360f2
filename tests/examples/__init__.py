"""Parts of one's own: an example of each kind."""

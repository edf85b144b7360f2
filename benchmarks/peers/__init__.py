"""pmpo_ray beside other prompt optimizers, at equal tokens."""

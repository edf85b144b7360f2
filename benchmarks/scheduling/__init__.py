"""How well the driver keeps replicas at work, in virtual time and on real Ray actors."""

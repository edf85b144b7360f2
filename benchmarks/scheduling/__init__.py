"""The utilisation of replicas by the driver, in virtual time and on real Ray actors."""

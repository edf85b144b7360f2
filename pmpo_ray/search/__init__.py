"""The search for one task: operators, gate, losses and selection. Pure: no Ray, no files, no clock."""

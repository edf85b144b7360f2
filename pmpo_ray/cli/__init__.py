"""The `pmpo` command: one module for each group of commands, and what they write to standard error."""

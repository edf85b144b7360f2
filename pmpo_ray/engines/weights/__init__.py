"""Model weights: from a model's name to a loaded model and tokenizer.

Each file imports only files above it:

- checksums: checksums of files
- cache: the cache of converted models
- quiet: output and errors of transformers and tokenizers
- gguf: convert GGUF files to model folders
- packaged: models that come as Python packages
- folder: a model folder's weight files, size and checksum
- hub: the hub and its local cache
- resolve: a model's name to its local folder
- loading: a model folder to a model and a tokenizer
"""

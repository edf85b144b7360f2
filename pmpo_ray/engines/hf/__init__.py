"""Engines over transformers models.

- scorer, generator: the two roles of a replica
- loading: a replica's configuration to a loaded model
- devices: device and number format; gpus: the GPUs that torch sees; processor: its extensions
- likelihood: log-likelihoods of answers, sharing what prompts have in common
- tree_attention: attention over packed trees; grouped_attention: attention for decoding
- output_head: hidden states to log-probabilities
- plain_scoring: scoring with a model's own attention, for all other models
- memory: the memory of a forward pass
- process_reward: scores of the steps of worked solutions
"""

"""Engines: one model replica each, usable, tested and timed without Ray.

Invariant: importing this package imports no engine; each is imported when one is created.

- factory: create the engine that a configuration names
- auto: choose an engine where the configuration leaves it open
- placement: the hardware of one replica
- custom: engines that a configuration names as "package.module:name"
- threaded: a synchronous engine on an event loop
- conversation: instructions, shots and inputs as messages or running text
- chat_template: a model's own template, and conversations as its text
- answer_header: what stands between an input and an answer
- text_tokens: texts to token ids, with special tokens only where the template has them
- prompt_encoder: instructions, shots, inputs and answers to token ids
- items: examples to the items that a scorer rates, and back to scores
- generation_prompt: generation requests to token ids, for local models
- answer_tree: prompts that share beginnings as tries
- hf: transformers models; vllm: vLLM; openai: OpenAI-compatible servers; simulated: an engine without a model
- weights: from a model's name to a loaded model
"""

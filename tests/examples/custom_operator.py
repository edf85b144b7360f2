"""Custom operators: they propose new instructions in every round, in addition to rewriting or instead of it.

optimize(data, operators=["rewrite", Shorten, without_harm])
search: {operators: [rewrite, "custom_operator:Shorten"]}      in a configuration
"""

from __future__ import annotations

from pmpo_ray import GenerateRequest, ProposalContext


class Shorten:
    """Request two shorter versions from the rewriter."""

    async def propose(self, context: ProposalContext) -> list[str]:
        request = GenerateRequest(
            prompt=f"Instruction: {context.parent.candidate.text}\n\nShorten it: <prompt>TEXT</prompt>",
            n=2,
            max_tokens=200,
            seed=context.seed,
        )
        reply = await context.rewriter.generate(request)
        texts = [sample.text.partition("<prompt>")[2] for sample in reply.samples]
        return [text.partition("</prompt>")[0].strip() for text in texts]


def without_harm(context: ProposalContext) -> list[str]:
    """Leave out every part that raises the loss. An operator that does not wait can be a plain function."""
    text = context.parent.candidate.text
    harmful = [row.segment for row in context.importances if row.importance < 0]
    for segment in sorted(harmful, key=lambda segment: -segment.start):
        text = f"{text[: segment.start]} {text[segment.end :]}"
    return [" ".join(text.split())] if harmful else []

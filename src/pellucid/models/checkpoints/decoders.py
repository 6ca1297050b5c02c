"""The families of decoders that are described by a table of keys.

Where several could write a shape, the first does.
"""

from pellucid.models.checkpoints import (
    bloom,
    cohere,
    experts,
    falcon,
    gemma,
    glm,
    gpt_neo,
    gpt_neox,
    gpt_oss,
    gptj,
    granite,
    llama_relatives,
    mpt,
    nemotron,
    olmo,
    opt,
    phi,
    smollm3,
    stablelm,
    starcoder,
)

FAMILIES = (
    *gemma.FAMILIES,
    *phi.FAMILIES,
    *olmo.FAMILIES,
    gpt_neox.FAMILY,
    gpt_neo.FAMILY,
    gptj.FAMILY,
    gptj.CODEGEN_FAMILY,
    *starcoder.FAMILIES,
    stablelm.FAMILY,
    falcon.FAMILY,
    smollm3.FAMILY,
    granite.FAMILY,
    *cohere.FAMILIES,
    *glm.FAMILIES,
    nemotron.FAMILY,
    opt.FAMILY,
    bloom.FAMILY,
    mpt.FAMILY,
    *llama_relatives.FAMILIES,
    *experts.FAMILIES,
    gpt_oss.FAMILY,
)

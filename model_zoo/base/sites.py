"""Sites of a captioner: the names under which LoRA strategies know its parts, and the modules they stand for."""

from __future__ import annotations

from harness.contracts import Region, Site

REGIONS: dict[str, Region] = {
    **dict.fromkeys(("qkv", "o", "mlp"), "language"),
    **dict.fromkeys(("v_qkv", "v_o", "v_mlp"), "vision"),
    "connector": "connector",
    "head": "head",
    "embeddings": "embeddings",
}


def usual_sites(language: str, vision: str, **patterns: str) -> dict[str, Site]:
    """The nine sites. language, vision: patterns of a layer of either, whose parts are named as Llama's and CLIP's.

    patterns: of the whole name, by site, for what is named otherwise and for all outside the layers.
    """
    usual = {
        "qkv": rf"{language}\.self_attn\.[qkv]_proj",
        "o": rf"{language}\.self_attn\.o_proj",
        "mlp": rf"{language}\.mlp\.(gate|up|down)_proj",
        "v_qkv": rf"{vision}\.self_attn\.[qkv]_proj",
        "v_o": rf"{vision}\.self_attn\.out_proj",
        "v_mlp": rf"{vision}\.mlp\.fc[12]",
        "head": "lm_head",
    }
    found = usual | patterns
    return {name: Site(found[name], region) for name, region in REGIONS.items()}

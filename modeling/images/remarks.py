"""What a decoder remarks about an image that it can read; jobs and scans count the remarks and tell them."""

FURTHER_PAGES = "frames"
UNCERTAIN_DEPTH = "uncertain_depth"

_TEXTS = {
    FURTHER_PAGES: "have several frames or pages; only the first is used",
    UNCERTAIN_DEPTH: (
        "hold values of more than 8 bits and do not state which value is white, such as 16-bit images that never "
        "exceed 1,023, 4,095 or 16,383; they may be read too dark: scale their values to the whole range, or state "
        "the bits (sBIT in PNG, MaxSampleValue in TIFF)"
    ),
}


def describe_remark(remark: str, num_images: int) -> str:
    """A remark and the number of its images, in words."""
    text = _TEXTS.get(remark, f"have the remark {remark}")
    if num_images != 1:
        return f"{num_images:,} images {text}"
    for plural, singular in (("have ", "has "), ("hold ", "holds "), (" and do not state", " and does not state")):
        text = text.replace(plural, singular, 1)
    return f"1 image {text}"

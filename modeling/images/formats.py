"""Image formats: their extensions and signatures, and which of them Pigeonhole reads."""

MAX_PIXELS = 89_478_485
"""Larger images are rejected by default: 256 MiB at 3 bytes a pixel, where Pillow warns of a decompression bomb."""

PILLOW_MAX_PIXELS = 2 * MAX_PIXELS
"""Pillow itself rejects larger images, so a limit above this has no effect."""

PASSES_PER_PIXEL = 25
"""Decoding may take so many passes for a pixel of the largest image: libjpeg writes CMYK in 24 scans of a channel."""

BYTES_PER_PIXEL = 24
"""Decoding may take so many bytes for every pixel of the largest image: 2 GiB by default."""

# JPEG also opens MPO (several JPEGs in one file); PPM also PGM, PBM and PFM. TGA is last: it has no signature, so its
# plugin also accepts other formats.
_READ_IN_ORDER = "JPEG PNG GIF BMP TIFF WEBP AVIF JPEG2000 PPM ICO QOI SGI PCX DIB TGA"
READABLE_FORMATS = tuple(_READ_IN_ORDER.split())
"""The only Pillow plugins that are tried, in this order. Never EPS: Pillow passes it to Ghostscript."""

_READABLE_EXTENSIONS = """
    .jpg .jpeg .jpe .jfif .jif .mpo .png .apng .gif .bmp .dib .rle .tif .tiff .webp .avif .avifs
    .jp2 .j2k .j2c .jpc .jpf .jpx .ppm .pgm .pbm .pnm .pfm .ico .qoi .sgi .rgb .rgba .bw .pcx
    .tga .icb .vda .vst
"""
_OTHER_EXTENSIONS = """
    .eps .epsf .ps .ai .psd .psb .xcf .kra .svg .svgz .heic .heics .heif .heifs .hif .jxl .jxr .wdp .hdp
    .jng .mng .dds .ftc .ftu .blp .cur .ani .icns .dcx .msp .pxr .palm .pcd .ras .sun .xbm .xpm .xwd .im .iim
    .gbr .fli .flc .wmf .emf .fit .fits .grib .bufr .exr .hdr .pic .pict .pct .bpg .flif .djvu .djv .dcm .cin
    .dpx .raw .arw .srf .sr2 .cr2 .cr3 .crw .dng .nef .nrw .orf .raf .rw2 .rwl .pef .srw .x3f .3fr .fff .iiq
    .kdc .dcr .erf .mef .mos .mrw .cap .gpr
"""
NOT_IMAGE_EXTENSIONS = frozenset({".pdf", ".mpg", ".mpeg", ".h5", ".hdf"})
"""Extensions that Pillow registers although the files are documents, videos or tables."""

IMAGE_EXTENSIONS: frozenset[str] = frozenset(_READABLE_EXTENSIONS.split()) | frozenset(_OTHER_EXTENSIONS.split())
"""Every extension (lower case, with its dot) of an image format; images in formats that Pigeonhole does not read get
the error `unsupported`, so that no image is silently skipped."""

# (offset, bytes, name) of image formats that Pigeonhole does not read.
_UNSUPPORTED_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"DDS ", "DDS"),
    (0, b"BLP1", "BLP"),
    (0, b"BLP2", "BLP"),
    (0, b"FTEX", "FTEX"),
    (0, b"icns", "ICNS"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x8aMNG\r\n\x1a\n", "MNG"),
    (0, b"\x8bJNG\r\n\x1a\n", "JNG"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"II\xbc\x01", "JPEG XR"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (0, b"/* XPM */", "XPM"),
    (0, b"#define ", "XBM"),
    (0, b"Y\xa6j\x95", "Sun raster"),
    (0, b"\xb1\x68\xde\x3a", "DCX"),
    (0, b"DanM", "MSP"),
    (0, b"LinS", "MSP"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (40, b" EMF", "EMF"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"FLIF", "FLIF"),
    (128, b"DICM", "DICOM"),
    (8, b"CR\x02\x00", "camera raw (CR2)"),
    (0, b"FUJIFILMCCD-RAW", "camera raw (RAF)"),
    (0, b"IIRO", "camera raw (ORF)"),
    (0, b"IIRS", "camera raw (ORF)"),
    (0, b"IIU\x00", "camera raw (RW2)"),
    (0, b"FOVb", "camera raw (X3F)"),
    (4, b"ftypcrx ", "camera raw (CR3)"),
)
HEIF = "HEIF"
"""What `unsupported_format` calls HEIC files, which are read where an extra is installed (modeling.images.heif)."""

_COMMON_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # JPEG and PNG: nearly all files are one of them
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

# (signature, end marker, name) of formats that Pigeonhole reads, to distinguish truncated files from damaged ones.
_READABLE_SIGNATURES: tuple[tuple[bytes, bytes, str], ...] = (
    (b"\xff\xd8\xff", b"\xff\xd9", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", b"IEND", "PNG"),
    (b"GIF8", b";", "GIF"),
    (b"BM", b"", "BMP"),
    (b"II*\x00", b"", "TIFF"),
    (b"MM\x00*", b"", "TIFF"),
    (b"II+\x00", b"", "TIFF"),
    (b"MM\x00+", b"", "TIFF"),
    (b"qoif", b"\x00\x00\x00\x00\x00\x00\x00\x01", "QOI"),
    (b"\xff\x4f\xff\x51", b"\xff\xd9", "JPEG 2000"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"", "JPEG 2000"),
    (b"\x01\xda", b"", "SGI"),
)


def unsupported_format(data: bytes) -> str | None:
    """Name of the unsupported image format whose signature `data` begins with, or None."""
    if data.startswith(_COMMON_SIGNATURES):
        return None
    for offset, signature, name in _UNSUPPORTED_SIGNATURES:
        if data.startswith(signature, offset):
            return name
    if data[4:8] == b"ftyp":
        brands = {data[i : i + 4] for i in range(8, min(len(data), 64), 4)}
        if brands & _HEIF_BRANDS and not brands & {b"avif", b"avis"}:
            return HEIF
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"<") and b"<svg" in head:
        return "SVG"
    return None


def readable_format(data: bytes) -> str | None:
    """Name of the supported format whose signature `data` begins with, or None."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp" and data[8:12] in {b"avif", b"avis"}:
        return "AVIF"
    return next((name for signature, _, name in _READABLE_SIGNATURES if data.startswith(signature)), None)


def is_truncated(data: bytes) -> bool:
    """Whether the end of the file is missing, as far as the format has an end marker or states its length."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    for signature, end, _ in _READABLE_SIGNATURES:
        if end and data.startswith(signature):
            return end not in data[-1024:]  # some writers pad after the end
    return False

"""Media types by the end of a file's name: a table, so that no file of the machine changes what is served."""

from __future__ import annotations

from typing import Final

__all__ = ["is_compact", "media_type_of"]

_UNKNOWN: Final = b"application/octet-stream"

# Text is UTF-8, which all tools of today write. JavaScript is text (RFC 9239). JSON has no parameter (RFC 8259).
_TYPES: Final = {
    "text/html; charset=utf-8": "html htm",
    "text/css; charset=utf-8": "css",
    "text/javascript; charset=utf-8": "js mjs cjs",
    "text/plain; charset=utf-8": "txt text log",
    "text/csv; charset=utf-8": "csv",
    "text/markdown; charset=utf-8": "md markdown",
    "text/calendar; charset=utf-8": "ics",
    "text/vcard; charset=utf-8": "vcf",
    "text/vtt; charset=utf-8": "vtt",
    "text/xml; charset=utf-8": "xml xsl xsd",
    "application/json": "json map topojson",
    "application/ld+json": "jsonld",
    "application/geo+json": "geojson",
    "application/manifest+json": "webmanifest",
    "application/wasm": "wasm",
    "application/xhtml+xml": "xhtml",
    "application/atom+xml": "atom",
    "application/rss+xml": "rss",
    "application/pdf": "pdf",
    "application/rtf": "rtf",
    "application/epub+zip": "epub",
    "application/zip": "zip",
    "application/gzip": "gz tgz",
    "application/zstd": "zst",
    "application/x-bzip2": "bz2",
    "application/x-xz": "xz",
    "application/x-7z-compressed": "7z",
    "application/x-tar": "tar",
    "application/vnd.android.package-archive": "apk",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-fontobject": "eot",
    "application/vnd.ms-powerpoint": "ppt",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.oasis.opendocument.presentation": "odp",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.apple.mpegurl": "m3u8",
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/midi": "mid midi",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/ogg": "oga ogg opus",
    "audio/wav": "wav",
    "audio/webm": "weba",
    "font/otf": "otf",
    "font/ttf": "ttf",
    "font/woff": "woff",
    "font/woff2": "woff2",
    "image/apng": "apng",
    "image/avif": "avif",
    "image/bmp": "bmp",
    "image/gif": "gif",
    "image/heic": "heic",
    "image/jpeg": "jpg jpeg",
    "image/jxl": "jxl",
    "image/png": "png",
    "image/svg+xml": "svg",
    "image/tiff": "tif tiff",
    "image/vnd.microsoft.icon": "ico cur",
    "image/webp": "webp",
    "model/gltf+json": "gltf",
    "model/gltf-binary": "glb",
    "video/mp4": "mp4 m4v",
    "video/mpeg": "mpeg mpg",
    "video/mp2t": "ts",
    "video/ogg": "ogv",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "video/x-msvideo": "avi",
}
_BY_EXTENSION: Final = {
    extension.encode("ascii"): name.encode("ascii")
    for name, extensions in _TYPES.items()
    for extension in extensions.split()
}
# What is compressed already has no compressed neighbour, and is not asked for one.
_COMPACT: Final = frozenset(
    b"gz tgz br zst bz2 xz 7z zip apk epub docx xlsx pptx odt ods odp woff woff2 png apng jpg jpeg gif webp avif heic "
    b"jxl mp3 m4a aac flac oga ogg opus weba mp4 m4v mpeg mpg ogv mov webm avi ts".split()
)


def media_type_of(name: bytes) -> bytes:
    """Return the value of Content-Type for a file of this name."""
    return _BY_EXTENSION.get(_extension_of(name), _UNKNOWN)


def is_compact(name: bytes) -> bool:
    """Tell whether a file of this name is compressed already."""
    return _extension_of(name) in _COMPACT


def _extension_of(name: bytes) -> bytes:
    _stem, dot, extension = name.rpartition(b".")
    return extension.lower() if dot else b""

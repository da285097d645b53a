"""Kinds of files that data sets have but that are not read, and what to do with each."""

from pathlib import Path

REMEDIES = {
    "are packed: unpack them": ".zip .tar .tgz .gz .bz2 .xz .7z .rar",
    "are volumes: save each slice as an image of its own, such as npy files called {case}_{slice}.npy": (
        ".nii .nii.gz .mha .mhd .raw .nrrd .hdr .img .mgz"
    ),
    "hold arrays: save each image or mask as a file of its own, as numpy.save or Pillow write it": (
        ".npz .mat .h5 .hdf5 .zarr .pkl .pt .tfrecord .lmdb .mdb"
    ),
    "hold outlines in a format that is not read: draw them as mask images, or write COCO json": (
        ".xml .geojson .shp .gpkg .kml .svg .roi"
    ),
    "are in a format that is not read: save them as png or tif": (
        ".heic .heif .avif .tga .psd .exr .jxl .cr2 .nef .arw .dng .svs .ndpi .mrxs .czi .lif .nd2 .ecw .sid"
    ),
    "are spreadsheets: save them as csv": ".xlsx .xls .ods",
}
REMEDY_OF = {suffix: words for words, suffixes in REMEDIES.items() for suffix in suffixes.split()}
POINTER = b"version https://git-lfs"


def kind_of(name: str) -> str:
    """The suffix of a file's name in lower case, both of `.nii.gz`."""
    suffixes = [suffix.lower() for suffix in Path("name" + name).suffixes[-2:]]
    return "".join(suffixes) if "".join(suffixes) in REMEDY_OF else "".join(suffixes[-1:])


def remedy_of(name: str) -> str | None:
    """Advice for files of this name or suffix, which are not read; None for those that may be images."""
    kind = kind_of(name)
    return f"{kind} files {REMEDY_OF[kind]}" if kind in REMEDY_OF else None


def packed(path: Path) -> str:
    """A hint if a missing folder lies packed beside its place; else an empty text."""
    archives = [path.with_name(path.name + suffix) for suffix in (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")]
    archive = (
        path if path.is_file() and remedy_of(path.name) else next((each for each in archives if each.is_file()), None)
    )
    return f"; unpack {archive} first" if archive else ""


def what_it_is(path: Path) -> str:
    """A guess at the kind of a file that is no image of a known kind."""
    try:
        with path.open("rb") as file:
            start = file.read(200)
    except OSError:
        return "is not an image of a known kind"
    if not start:
        return "is empty"
    if start[128:132] == b"DICM":
        return "is a DICOM file; let its name end in .dcm"
    if start.startswith(POINTER):
        return "is a pointer to a file that Git LFS has not fetched (git lfs pull)"
    if start.lstrip()[:1] == b"<":
        return f"is a text, not an image: it begins with {ascii(start.lstrip()[:20].decode(errors='replace'))}"
    return "is not an image of a known kind, or it is cut short"

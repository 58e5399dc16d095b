"""Files that are something else than their names say: named as what they are, with what to do."""

import gzip
import json
import pickle
import zipfile

import numpy as np
import pytest

from evaluators import DataFileError, read_act, read_detections, read_label_map
from evaluators.act_pickle import load_plain

PAGE = b"\n <!DOCTYPE html>\n<html><body>Google Drive can't scan this file</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "a,0902")


@pytest.mark.parametrize("read", [read_detections, read_label_map, read_act])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (PAGE, "a web page, whatever its name says; fetch the file itself"),
        (POINTER, "a Git LFS pointer, whatever its name says; run git lfs pull"),
        (gzip.compress(b"a,0902", mtime=0), "gzip, whatever its name says; unpack it with gunzip"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "a MATLAB file, .*scipy.io.loadmat"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file, .*h5py"),
        (json.dumps({"annotations": []}).encode(), "JSON, whatever its name says; .* is needed"),
        (json.dumps([[1, 2]]).encode(), "JSON"),
        (b"\x93NUMPY\x01\x00", "an array of numpy.save, .* is needed"),
        (zipped, "a zip archive, .* is needed"),
    ],
    ids=["page", "pointer", "gzip", "MATLAB", "HDF5", "dict", "list", "array", "zip"],
)
def test_a_file_that_is_something_else_is_named_as_that(tmp_path, read, content, what):
    path = tmp_path / "annotations.csv"
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    with pytest.raises(DataFileError, match=f"annotations.csv: this is {what}"):
        read(path)


def test_a_pickle_is_none_of_the_texts_and_text_no_pickle(tmp_path):
    path = tmp_path / "d.csv"
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(DataFileError, match=r"this is a pickle, .* text, one line for each row"):
        read_detections(path)
    assert load_plain(path) == [1]
    np.save(tmp_path / "d.npy", np.zeros(3))
    with pytest.raises(DataFileError, match=r"this is an array of numpy.save, .*; a pickle is needed"):
        load_plain(tmp_path / "d.npy")


def test_text_that_only_begins_alike_is_read(tmp_path):
    """A video may be called version, a class [a]."""
    (tmp_path / "d.csv").write_text("version,0902,0.1,0.2,0.3,0.4,12,0.9\n")
    assert read_detections(tmp_path / "d.csv").videos == ("version",)
    (tmp_path / "m.txt").write_text("[a] walk\nrun\n")
    assert read_label_map(tmp_path / "m.txt") == {1: "[a] walk", 2: "run"}

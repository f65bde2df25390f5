"""The report of a reading: counts, reasons, sentences, JSON."""

from __future__ import annotations

import json

import pytest

from izograf.data.scan import UNLABELLED, ScanReport, scan_report
from izograf.schema.errors import DataError


def test_counts_and_json_round_trip():
    skipped = [("a.jpg", "truncated"), ("b.svg", "SVG"), ("c.jpg", "truncated")]
    report = scan_report(("cat", "dog"), [0, 0, 1, -1], skipped)
    assert report.read == 4
    assert report.per_class == {"cat": 2, "dog": 1, UNLABELLED: 1}
    assert report.unlabelled == 1
    assert report.reasons == {"truncated": 2, "SVG": 1}
    assert report.summary() == "4 pictures read, 3 skipped (2 truncated, 1 SVG)"
    assert ScanReport.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize(
    ("names", "ids", "warning"),
    [
        ((), [-1, -1], "No picture has a class"),
        (("cat", "dog"), [0, 1, -1], "1 of 3 pictures have no class"),
        (("cat",), [0, 0], "one class only, cat"),
        (("cat", "dog"), [0, 0], "No picture was read of: dog"),
    ],
)
def test_warnings(names, ids, warning):
    assert any(warning in line for line in scan_report(names, ids, []).warnings)


def test_a_good_set_has_no_warnings():
    report = scan_report(("cat", "dog"), [0, 1], [])
    assert report.warnings == ()
    assert report.summary() == "2 pictures read, 0 skipped"
    report.raise_if_skipped("x")
    report.raise_if_empty("x")


def test_errors_name_the_first_files_and_why():
    report = scan_report(("cat",), [0], [(f"{i}.jpg", "truncated") for i in range(9)])
    with pytest.raises(DataError, match=r"9 of 10 pictures in x .* 0\.jpg: truncated; .* 4 more"):
        report.raise_if_skipped("x")
    with pytest.raises(DataError, match=r"None of the 1 files in x .* a\.txt: empty file"):
        scan_report((), [], [("a.txt", "empty file")]).raise_if_empty("x")

"""Tables of dies: names of columns, values, coordinates, labels, and what is refused."""

import csv
import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.sources.die_table import read_csv
from data_pipeline.sources.raw import ILLEGAL

HEADER = "lot,wafer,x,y,bin,label\n"
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=5)


def read(tmp_path, text, name="w.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_csv(path)


def maps_of(found):
    cells = np.split(found.cells, found.offsets[1:-1])
    return [
        one.reshape(height, width).tolist()
        for one, height, width in zip(cells, found.heights, found.widths, strict=True)
    ]


def test_dies_become_wafers_in_the_order_in_which_they_appear(tmp_path):
    rows = "B,1,0,0,1,ring\nA,1,0,0,2,\nB,1,1,0,2,ring\nB,2,0,1,1,\nB,2,0,0,2,\n"

    found = read(tmp_path, HEADER + rows)

    assert maps_of(found) == [[[1, 2]], [[2]], [[2], [1]]]
    assert found.lots == ["B", "A", "B"]
    assert found.labels == ["ring", None, None]
    assert found.official == [None] * 3
    assert found.source == str(tmp_path / "w.csv")
    assert found.left_out == {}


def test_places_without_a_row_have_no_die(tmp_path):
    assert maps_of(read(tmp_path, HEADER + "A,1,0,1,1,\nA,1,2,0,2,\n")) == [[[0, 0, 2], [1, 0, 0]]]


def test_coordinates_may_start_anywhere(tmp_path):
    assert maps_of(read(tmp_path, HEADER + "A,1,-3,70.0,1,\nA,1,-2,71,2,\n")) == [[[1, 0], [0, 2]]]


def test_the_last_test_of_a_die_counts(tmp_path):
    rows = "A,1,0,0,2,\nA,1,1,0,1,\nA,1,0,0,1,\nA,1,1,0,2,\n"

    assert maps_of(read(tmp_path, HEADER + rows)) == [[[1, 2]]]


@pytest.mark.parametrize(
    "header",
    [
        "LOT_ID;WaferIndex;Die X;die-y;Result;failureType",
        "lotName\twafer_id\tcol\trow\tSTATUS\tclass",
        "Lot,wafer,column,Y,die_code,Label",
    ],
)
def test_columns_are_found_by_any_of_their_names(tmp_path, header):
    delimiter = next(one for one in ";\t," if one in header)
    row = delimiter.join(["007", "1", "0", "0", "2", "arc"])

    found = read(tmp_path, f"\ufeff{header}\r\n{row}\r\n")

    assert (found.lots, found.labels, maps_of(found)) == (["007"], ["arc"], [[[2]]])


def test_more_columns_are_ignored_and_the_surest_name_wins(tmp_path):
    found = read(tmp_path, "vdd,row,y,x,bin,result,wafer,lot\n1.8,9,0,0,2,1,1,A\n")

    assert maps_of(found) == [[[2]]]
    assert found.labels == [None]


@pytest.mark.parametrize(
    ("column", "text", "code"),
    [
        *[(column, word, 1) for column in ("bin", "result") for word in ("1", "1.0", "pass", "P", "Good", " OK ")],
        *[(column, word, 2) for column in ("bin", "result") for word in ("2", "FAIL", "f", "bad", "ng")],
        *[("bin", text, code) for text, code in (("0", 0), ("3", 2), ("31", 2), ("-1", ILLEGAL), ("2.5", ILLEGAL))],
        *[("bin", text, ILLEGAL) for text in ("", "nan", "inf", "x")],
        *[("code", text, code) for text, code in (("0", 0), ("3", ILLEGAL), ("", ILLEGAL), ("maybe", ILLEGAL))],
    ],
)
def test_results_are_codes_words_or_hard_bins(tmp_path, column, text, code):
    assert read(tmp_path, f"lot,wafer,x,y,{column}\nA,1,0,0,{text}\n").cells.tolist() == [code]


@pytest.mark.parametrize(
    ("text", "label"), [("", None), ("NaN", None), ("none", "none"), (" NA", "NA"), ('"a,b"', "a,b")]
)
def test_labels_are_kept_as_written(tmp_path, text, label):
    assert read(tmp_path, HEADER + f"A,1,0,0,1,{text}\n").labels == [label]


def test_rows_without_a_label_say_nothing_about_their_wafer(tmp_path):
    assert read(tmp_path, HEADER + "A,1,0,0,1,\nA,1,1,0,1,arc\nA,1,2,0,1,\n").labels == ["arc"]


@given(data=st.data())
def test_reading_gives_the_wafers_that_were_written(tmp_path_factory, data):
    keys = data.draw(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=4, unique=True))
    shape = st.tuples(st.integers(1, 4), st.integers(1, 4))
    maps = [
        [[data.draw(st.integers(1, 2)) for _ in range(width)] for _ in range(height)]
        for height, width in data.draw(st.lists(shape, min_size=len(keys), max_size=len(keys)))
    ]
    labels = data.draw(st.lists(st.sampled_from(["arc", "none", 'a "b"']), min_size=len(keys), max_size=len(keys)))
    left, top = data.draw(st.integers(-9, 9)), data.draw(st.integers(-9, 9))
    path = tmp_path_factory.mktemp("csv") / "w.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["lot", "wafer", "x", "y", "bin", "label"])
        for (lot, wafer), one, label in zip(keys, maps, labels, strict=True):
            for y, row in enumerate(one):
                writer.writerows([lot, wafer, x + left, y + top, code, label] for x, code in enumerate(row))

    found = read_csv(path)

    assert maps_of(found) == maps
    assert (found.lots, found.labels) == ([lot for lot, _ in keys], labels)


def test_compressed_tables_are_read(tmp_path):
    path = tmp_path / "w.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "A,1,0,0,1,arc\n").encode()))

    assert read_csv(path).labels == ["arc"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wafer,x,y,bin\nA,1,0,0\n", "must have a column called lot or lotid or lotname in .*; got 'wafer', 'x'"),
        ("lot,wafer,x,y\nA,1,0,0\n", "must have a column called bin or result or code or diecode or status in"),
        ("\nlot,wafer,x,y,bin\n", "must have a column called lot .* got nothing; rename one"),
        ("lot,Lot,wafer,x,y,bin\n", "must have one column called 'lot'; got 2; rename one"),
        (HEADER, r"damaged or not a table \(Empty CSV file\); every row must fit the header"),
        (HEADER + "A,1,0,0,1\n", r"damaged or not a table \(.*Expected 6 columns, got 5"),
        (HEADER + "A,1,0,0,1,arc,more\n", r"damaged or not a table \(.*Expected 6 columns, got 7"),
        ("vdd," + HEADER + "1,A,1,0,0,1,arc,more\n", r"damaged or not a table \(.*Expected 7 columns, got 8"),
        (HEADER + "A,1,0,0,1,\n,1,0,0,1,\n", "lot: must be filled in; got nothing in row 3"),
        (HEADER + "A,,0,0,1,\n", "wafer: must be filled in; got nothing in row 2"),
        (HEADER + "A,1,a,0,1,\n", "x: must be a whole number within 1,000,000; got 'a' in row 2"),
        (HEADER + "A,1,0,0,1,\nA,1,0,0.5,1,\n", "y: must be a whole number within 1,000,000; got '0.5' in row 3"),
        (HEADER + "A,1,,0,1,\n", "x: must be a whole number within 1,000,000; got '' in row 2"),
        (HEADER + "A,1,nan,0,1,\n", "x: must be a whole number within 1,000,000; got 'nan' in row 2"),
        (HEADER + "A,1,-1e99,0,1,\n", "x: must be a whole number within 1,000,000; got '-1e99' in row 2"),
        (HEADER + "A,1,0,0,1,\nA,1,2000,0,1,\n", "at most 2,000x2,000 dies; got 1x2,001 for wafer '1' of lot 'A'"),
        (HEADER + "A,1,0,0,1,arc\nA,1,1,0,1,ring\n", "got 'arc' and 'ring' for wafer '1' of lot 'A'"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_right_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=rf"w\.csv: .*{message}"):
        read(tmp_path, text)


def test_wafers_that_are_nearly_empty_everywhere_are_refused(tmp_path):
    rows = "".join(f"A,{i},0,0,1,\nA,{i},1999,1999,1,\n" for i in range(70))

    with pytest.raises(DataError, match=r"must have grids that are not nearly empty; got 2,000x2,000 for wafer '0' of"):
        read(tmp_path, HEADER + rows)


def test_a_table_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "w.csv").write_bytes((HEADER + "Ä,1,0,0,1,\n").encode("latin-1"))
    (tmp_path / "v.csv").write_bytes(("Löt," + HEADER).encode("latin-1"))

    for name in ("w.csv", "v.csv"):
        with pytest.raises(DataError, match=rf"{name}: must be encoded in UTF-8; save it again as such"):
            read_csv(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"w\.csv: cannot be read \(No such file or directory\)"):
        read_csv(tmp_path / "w.csv")


@pytest.mark.parametrize("content", [b"not gzip", gzip.compress(HEADER.encode() * 99)[:50]], ids=["foreign", "cut"])
def test_damaged_compressed_tables_are_refused(tmp_path, content):
    (tmp_path / "w.csv.gz").write_bytes(content)

    with pytest.raises(DataError, match=r"w\.csv\.gz: (cannot be read \(Not a gzipped file|damaged or not a table)"):
        read_csv(tmp_path / "w.csv.gz")


def test_a_compressed_table_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    bomb = gzip.compress(HEADER.encode()) + gzip.compress(b"\n" * (1 << 20)) * 257
    (tmp_path / "w.csv.gz").write_bytes(bomb)

    with pytest.raises(DataError, match=r"w\.csv\.gz: must not unpack to more than 200 times its size; got .* refused"):
        read_csv(tmp_path / "w.csv.gz")


def accept_or_refuse(path):
    try:
        return len(read_csv(path)) > 0
    except DataError:
        return "refused"


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_mutated_tables_are_read_or_refused(tmp_path, mutations, suffix):
    text = (HEADER + "A,1,0,0,1,arc\nA,1,1,0,2,arc\nB,1,-5,7,fail,\n").encode()
    valid = {".csv": text, ".csv.gz": gzip.compress(text)}[suffix]
    path = tmp_path / f"mutated{suffix}"

    for mutated in mutations(valid):
        path.write_bytes(mutated)
        assert accept_or_refuse(path)

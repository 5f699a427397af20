"""Studies that cannot be used: each ends in its sentence and exit code."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

from algorithm.dicom.study import read_pet, read_study
from algorithm.errors import UserError
from test.support.dicom import CORONAL, Maker, edit_all, tracer_of, uid, write

PET = np.arange(8 * 5 * 4, dtype=np.int16).reshape(8, 5, 4)
CT = (np.arange(10 * 6 * 5, dtype=np.int16) - 100).reshape(10, 6, 5)

Break = Callable[[Path], None]


def _pet(**elements: object) -> Break:
    """A study whose PET has these elements."""

    def make(folder: Path) -> None:
        Maker().pet(folder / "pet", PET, edit=edit_all(**elements))
        Maker().ct(folder / "ct", CT)

    return make


def _edited(edit, *, ct_edit=None) -> Break:
    def make(folder: Path) -> None:
        Maker().pet(folder / "pet", PET, edit=edit)
        Maker().ct(folder / "ct", CT, edit=ct_edit)

    return make


def _without(*indices: int) -> Break:
    def make(folder: Path) -> None:
        paths = Maker().pet(folder / "pet", PET)
        Maker().ct(folder / "ct", CT)
        for index in indices:
            paths[index].unlink()

    return make


def _moved(dataset, index):
    """The second half of the slices lies further apart."""
    z = 3.0 * index if index < 4 else 12.0 + 4.3 * (index - 4)
    dataset.ImagePositionPatient = [-40.0, -30.0, 100.0 + z]


def _tilted(dataset, index):
    dataset.ImagePositionPatient = [-40.0, -30.0 + 0.8 * index, 100.0 + 3.0 * index]


def _another_slice_in_one_place(folder: Path) -> None:
    _pet()(folder)
    path = sorted((folder / "pet").iterdir())[0]
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = uid("another")
    dataset.PixelData = bytes(len(dataset.PixelData))
    write(dataset, folder / "pet" / "another.dcm")


def _dynamic(folder: Path) -> None:
    Maker().ct(folder / "ct", CT)
    for frame in range(3):

        def edit(dataset, index, frame=frame):
            dataset.SOPInstanceUID = uid("frame", str(frame), str(index))
            dataset.AcquisitionTime = f"11{frame:02d}00"

        Maker().pet(folder / f"frame {frame}", PET, edit=edit)


def _mixed(folder: Path) -> None:
    """Two orientations of eight slices each under one UID."""
    _pet()(folder)
    Maker(orientation=CORONAL).pet(
        folder / "coronal",
        PET,
        edit=lambda dataset, index: setattr(dataset, "SOPInstanceUID", uid("c", str(index))),
    )
    shutil.rmtree(folder / "pet")


def _two_studies(folder: Path) -> None:
    for name in ("one", "two"):
        Maker(study=name).pet(folder / name / "pet", PET)
        Maker(study=name).ct(folder / name / "ct", CT)


def _cut(folder: Path) -> None:
    _pet()(folder)
    path = sorted((folder / "pet").iterdir())[3]
    path.write_bytes(path.read_bytes()[:-20])


def _garbled(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "x.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 400)


def _only(modality: str) -> Break:
    def make(folder: Path) -> None:
        if modality == "PT":
            Maker().pet(folder, PET)
        else:
            Maker().ct(folder, CT)

    return make


def _two_tracers(dataset, _):
    second = copy.deepcopy(tracer_of(dataset))
    second.RadionuclideTotalDose = "100000000"
    dataset.RadiopharmaceuticalInformationSequence.append(second)


def _no_tracer(dataset, _):
    del dataset.RadiopharmaceuticalInformationSequence


def _unknown_nuclide(dataset, _):
    del tracer_of(dataset).RadionuclideHalfLife
    del tracer_of(dataset).RadionuclideCodeSequence


def _raw_weight(dataset, _):
    dataset["PatientWeight"] = RawDataElement(Tag("PatientWeight"), "DS", 6, b"heavy ", 0, False, True)


def _units_by_slice(dataset, index):
    dataset.Units = "GML" if index % 2 else "BQML"


def _reconstructions(folder: Path) -> None:
    _pet()(folder)
    Maker().pet(folder / "second", PET, series="second")


def _halves(folder: Path) -> None:
    _edited(lambda dataset, index: setattr(dataset, "FrameOfReferenceUID", f"1.2.{1 + index % 2}"))(folder)


def _cts(folder: Path) -> None:
    _pet()(folder)
    Maker().ct(folder / "second", CT, series="second")


def _patients(folder: Path) -> None:
    _edited(None, ct_edit=edit_all(PatientID="somebody else"))(folder)


def _other_space(folder: Path) -> None:
    Maker().pet(folder / "pet", PET)
    Maker(frame_of_reference="other").ct(folder / "ct", CT)


def _text_file(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "report.pdf").write_text("%PDF")


NO_TIME = {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": None}
CASES: dict[str, tuple[Break, int, str]] = {
    # what lies in the folder
    "no such folder": (lambda folder: None, 2, "there is no folder"),
    "empty folder": (lambda folder: folder.mkdir(), 2, "the folder .* is empty"),
    "no DICOM in it": (_text_file, 2, "no DICOM image in .*, only other files .1."),
    "a garbled file": (_garbled, 2, r"cannot read the DICOM file .*x\.dcm"),
    "no PET": (_only("CT"), 2, "there is no PET series in .*, only 1 CT"),
    "no CT": (_only("PT"), 2, "there is no CT series in .*, only 1 PT"),
    "two reconstructions": (_reconstructions, 2, "2 PET series fit equally well: .*--pet-series"),
    "one series, two frames of reference": (_halves, 2, "one PET series lie in 2 stacks .*the files of one"),
    "two CTs": (_cts, 2, "2 CT series fit equally well: .*--ct-series"),
    "two studies": (_two_studies, 2, "PETs of several studies"),
    "two patients": (
        _patients,
        2,
        r"must be of one patient, got two PatientIDs, one in the PET series 3 .* and another in the CT series 2 ",
    ),
    "two spaces": (_other_space, 2, "no CT shares the FrameOfReferenceUID"),
    # slices that make no volume
    "a slice missing": (_without(3), 2, r"1 slice is missing, as between IM\d+\.dcm \(106.00 mm\)"),
    "slices missing in two places": (_without(2, 5), 2, "2 slices are missing"),
    "one slice only": (_without(*range(1, 8)), 2, "one slice only"),
    "unevenly spaced": (_edited(_moved), 2, r"unevenly spaced, 3\.00 to 4\.30 mm"),
    "gantry tilt": (_edited(_tilted), 2, r"shifted sideways by up to 5\.6 mm, as by a gantry tilt of 14\.9"),
    "another slice in one place": (_another_slice_in_one_place, 2, "two different slices lie in one place"),
    "a dynamic series": (_dynamic, 2, "dynamic or gated, with 3 frames at each position"),
    "rows and columns not perpendicular": (
        _pet(ImageOrientationPatient=[1, 0, 0, 0.3, 0.954, 0]),
        2,
        "not perpendicular",
    ),
    "no positions": (_pet(ImagePositionPatient=None), 2, "it is a picture without position"),
    "a localiser alone": (
        _edited(None, ct_edit=edit_all(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
        2,
        "it is a localiser",
    ),
    "a projection alone": (_pet(ImageType=["DERIVED", "SECONDARY", "MIP"]), 2, "it is a projection"),
    "no pixel spacing": (_pet(PixelSpacing=None), 2, "no PixelSpacing"),
    "pixels cut off": (_cut, 2, r"cannot read the pixels of .*IM0004\.dcm"),
    "a CT without HU": (_edited(None, ct_edit=edit_all(RescaleSlope=None)), 2, "no RescaleSlope, so its values"),
    "a dual-energy map": (
        _edited(None, ct_edit=edit_all(RescaleType="Z_EFF")),
        2,
        "must be in HU, got RescaleType",
    ),
    # values that are no SUV
    "rescale intercept": (_pet(RescaleIntercept=5), 2, "RescaleIntercept of a PET must be 0, got 5"),
    "no rescale slope": (_pet(RescaleSlope=None), 2, "RescaleSlope must be above 0, got none"),
    "a negative slope": (_pet(RescaleSlope=-1), 2, "RescaleSlope must be above 0, got -1"),
    "no attenuation correction": (_pet(CorrectedImage=["DECY"]), 2, "must be corrected for attenuation"),
    "no corrections named": (_pet(CorrectedImage=None), 2, "must be corrected for attenuation"),
    "decay corrected, says one, not, the other": (
        _pet(DecayCorrection="NONE"),
        2,
        r"CorrectedImage NORM.* contradicts DecayCorrection NONE",
    ),
    "not decay corrected, says one": (_pet(CorrectedImage=["ATTN"]), 2, "ATTN contradicts DecayCorrection START"),
    "unknown decay correction": (_pet(DecayCorrection="SOME"), 2, "must be START, ADMIN or NONE, got SOME"),
    "no units": (_pet(Units=None), 2, "Units must be .*, got none"),
    "relative counts": (_pet(Units="PROPCPS"), 2, "Units must be .*, got PROPCPS"),
    "counts without Philips' factors": (_pet(Units="CNTS"), 2, r"\(7053,1000\) and \(7053,1009\)"),
    "counts per second, uncalibrated": (_pet(Units="CPS"), 2, "without DCAL .* and without DoseCalibrationFactor"),
    "units that differ": (_edited(_units_by_slice), 2, "Units must be the same in all slices, got BQML and GML"),
    "unknown SUV type": (_pet(Units="GML", SUVType="OTHER"), 2, "SUVType must be .*, got OTHER"),
    "lean mass without height": (_pet(Units="GML", SUVType="LBM", PatientSize=None), 2, "PatientSize .*got none"),
    "lean mass without sex": (_pet(Units="GML", SUVType="LBM", PatientSex=""), 2, "PatientSex .*got none"),
    "surface called weight": (_pet(Units="CM2ML", SUVType="BW"), 2, "CM2ML contradict SUVType BW"),
    "no weight": (_pet(PatientWeight=None), 2, "PatientWeight .*got none.*--weight-kg"),
    "a weight that is no number": (_edited(_raw_weight), 2, "PatientWeight must be above 0, got heavy"),
    "weight 0": (_pet(PatientWeight=0), 2, "PatientWeight must be above 0, got 0"),
    "no dose": (_pet(RadionuclideTotalDose=None), 2, "RadionuclideTotalDose .*got none.*--dose-mbq"),
    "a dose in kBq": (_pet(RadionuclideTotalDose="368080"), 2, "got 368080, which is neither.*--dose-mbq"),
    "no tracer at all": (_edited(_no_tracer), 2, "RadionuclideTotalDose must be above 0, got none"),
    "two tracers": (_edited(_two_tracers), 2, "must have one tracer, got 2"),
    "no half-life, unknown nuclide": (
        _edited(_unknown_nuclide),
        2,
        r"got none, and the radionuclide \(none named\).*--half-life-s",
    ),
    "half-life in minutes": (_pet(RadionuclideHalfLife="109.77"), 2, "must be in s, got 109.77.*--half-life-s"),
    "no injection time": (_pet(**NO_TIME), 2, "got none.*--injection-time"),
    "an injection after the PET": (
        _pet(RadiopharmaceuticalStartDateTime="20250101120000"),
        2,
        "got 2025-01-01 12:00:00 for the injection and 2025-01-01 11:00:00 for",
    ),
    "an injection a year before": (
        _pet(RadiopharmaceuticalStartDateTime="20240101100000"),
        2,
        "got 2024-01-01 10:00:00 for the injection",
    ),
    "no times of the PET": (
        _pet(AcquisitionTime=None, SeriesTime=None),
        2,
        "AcquisitionTime and SeriesTime are missing",
    ),
    "undecayed without durations": (
        _pet(DecayCorrection="NONE", CorrectedImage=["ATTN"], ActualFrameDuration=None),
        2,
        "ActualFrameDuration are missing",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_study_that_cannot_be_used_ends_in_its_sentence(tmp_path, case):
    make, exit_code, sentence = CASES[case]
    folder = tmp_path / "study"
    make(folder)
    with pytest.raises(UserError, match=f"(?s){sentence}") as caught:
        read_study(folder)
    assert caught.value.exit_code == exit_code
    said = str(caught.value)
    assert "\n" not in said
    assert ";" in said  # what is wrong; what to do


def test_mixed_orientations_are_told_apart(tmp_path):
    """A coronal stack alone is a volume; it is beside an axial one that it is passed over (test_study)."""
    _mixed(tmp_path)
    assert abs(read_pet(tmp_path).series.normal[1]) == pytest.approx(1.0)


BROKEN = {"gone": None, "text": b"abc ", "several": b"1\\2\\3\\4", "binary": b"\xff\x00\xfe\x01", "zero": b"0 "}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_no_broken_element_ends_in_anything_but_a_sentence(tmp_path, kind, broken):
    """Each element of a PET in turn: the PET is read all the same, or refused."""
    stored = PET[:3]
    if kind == "classic":
        paths = Maker().pet(tmp_path / "good", stored)
    else:
        paths = [Maker().enhanced(tmp_path / "good" / "e.dcm", "PT", stored, [1.0, 2.0, 3.0])]
    refused: list[str] = []
    for tag in list(pydicom.dcmread(paths[0]).keys()):
        for path in paths:
            _break(path, tmp_path / "bad" / path.name, tag, BROKEN[broken])
        try:
            read_pet(tmp_path / "bad")
        except UserError as error:
            refused.append(str(error))
    assert refused
    assert not any("\n" in sentence for sentence in refused)


def _break(source: Path, target: Path, tag: BaseTag, value: bytes | None) -> None:
    dataset = pydicom.dcmread(source)
    if value is None or dataset[tag].VR == "SQ":
        del dataset[tag]
    else:
        dataset[tag] = RawDataElement(tag, dataset[tag].VR, len(value), value, 0, False, True)
    target.parent.mkdir(exist_ok=True)
    dataset.save_as(target)


def test_there_are_thirty_of_them():
    assert len(CASES) >= 30

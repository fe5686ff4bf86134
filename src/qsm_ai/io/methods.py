"""What a paper should say about a map, as the consensus recommendations ask."""

from __future__ import annotations

from dataclasses import dataclass

from qsm_ai import __version__
from qsm_ai.reconstruction.options import Options
from qsm_ai.reconstruction.pipeline import PASSES
from qsm_ai.scan import Scan


@dataclass(frozen=True)
class Citation:
    """A source, short enough for a report.

    Attributes
    ----------
    text : str
        Authors, journal, year.
    doi : str
    """

    text: str
    doi: str


CONSENSUS = Citation("QSM Consensus Organization Committee, Magn Reson Med 2024", "10.1002/mrm.30006")
PATH_UNWRAPPING = Citation("Dymerska et al., Magn Reson Med 2021", "10.1002/mrm.28563")
LAPLACIAN_UNWRAPPING = Citation("Schofield & Zhu, Opt Lett 2003", "10.1364/OL.28.001194")
LINEAR_FIT = Citation("Robinson et al., NMR Biomed 2017", "10.1002/nbm.3601")
LBV = Citation("Zhou et al., NMR Biomed 2014", "10.1002/nbm.3064")
PDF = Citation("Liu et al., NMR Biomed 2011", "10.1002/nbm.1670")
V_SHARP = Citation("Wu et al., Magn Reson Med 2012", "10.1002/mrm.23000")
TKD = Citation("Shmueli et al., Magn Reson Med 2009", "10.1002/mrm.22135")
TIKHONOV_AND_TV = Citation("Bilgic et al., Magn Reson Med 2014", "10.1002/mrm.25029")
EDGES = Citation("Liu et al., NeuroImage 2012", "10.1016/j.neuroimage.2011.08.082")
DIPOLE = Citation("Salomir et al., Concepts Magn Reson B 2003", "10.1002/cmr.b.10083")

_UNWRAPPING = {
    "path": ("unwrapped along paths of best quality", PATH_UNWRAPPING),
    "laplacian": ("unwrapped with the Laplacian method", LAPLACIAN_UNWRAPPING),
}
_BACKGROUND = {
    "lbv": ("solving the Laplacian boundary value problem (LBV)", LBV),
    "pdf": ("projection onto dipole fields (PDF)", PDF),
    "v-sharp": ("variable-kernel spherical mean value filtering (V-SHARP)", V_SHARP),
}
_INVERSION = {
    "tkd": ("thresholded k-space division (TKD, threshold 0.15)", TKD),
    "tikhonov": ("closed-form Tikhonov regularisation (weight 0.01)", TIKHONOV_AND_TV),
    "tv": ("total-variation regularisation, solved by ADMM", TIKHONOV_AND_TV),
}
_COARSE_FIRST = (
    ", after the fields of the mask, of three shells around it, of an offset and of shims up to the second "
    "order had been fitted to the total field and subtracted"
)
_RELATIVE_TO = {
    "mean": "relative to the mean of the brain mask",
    "csf": "relative to the mean of cerebrospinal fluid in the ventricles, found by its low R2*",
    "none": "without referencing",
}
_AGAIN = (
    f"(in {PASSES} passes, before each of which background removal was repeated on the field that the "
    "last map left unexplained) "
)

_CONFINED = " susceptibility outside the mask being penalised unless that made the map restless,"


def methods_paragraph(scan: Scan, options: Options, network: str | None) -> tuple[str, tuple[Citation, ...]]:
    """A paragraph for a methods section, with numbered citations.

    Parameters
    ----------
    scan : Scan
    options : Options
    network : str or None
        Name and version of the model, for the method "qsm-vit".

    Returns
    -------
    text : str
        Citations stand as [1], [2], in the order of the second value.
    citations : tuple of Citation
    """
    cited: list[Citation] = []

    def cite(citation: Citation) -> str:
        if citation not in cited:
            cited.append(citation)
        return f"[{cited.index(citation) + 1}]"

    voxel = " × ".join(f"{v:.3g}" for v in scan.grid.voxel_size)
    sentences = [
        f"Quantitative susceptibility maps were reconstructed with QSM-AI {__version__}, following the "
        f"consensus recommendations {cite(CONSENSUS)}."
    ]
    if scan.phase is not None:
        times = ", ".join(f"{1000 * t:.4g}" for t in scan.echo_times)
        echoes = f"{len(scan.echo_times)} echo{'es' if len(scan.echo_times) > 1 else ''}"
        how, source = _UNWRAPPING[options.unwrapping]
        if options.unwrapping == "path" and len(scan.echo_times) > 1:
            how += ", with the first echoes as templates"
        sentences.append(
            f"The phase of a gradient-echo scan ({echoes}, TE {times} ms, {scan.field_strength:g} T, voxels "
            f"of {voxel} mm) was {how} {cite(source)}, and the total field was "
        )
        if len(scan.echo_times) == 1:
            sentences[-1] += "taken from the phase over the echo time, without a phase offset."
        else:
            weighting = "magnitude-weighted" if scan.magnitude is not None else "unweighted"
            sentences[-1] += (
                f"estimated by {_article(weighting)} linear fit over the echoes with a phase offset "
                f"{cite(LINEAR_FIT)}."
            )
    else:
        start = "a total field" if scan.total_field is not None else "a local field"
        sentences.append(f"The reconstruction started from {start} map (voxels of {voxel} mm).")
    quality = "magnitude and phase quality" if scan.magnitude is not None else "phase quality"
    made = "given by the user" if scan.mask is not None else f"made from {quality}"
    sentences.append(f"The brain mask was {made}.")
    if scan.local_field is None:
        how, source = _BACKGROUND[options.background]
        first = _COARSE_FIRST if options.background == "pdf" else ""
        sentences.append(f"Background fields were removed by {how} {cite(source)}{first}.")
    direction = ", ".join(f"{b:.4f}" for b in scan.b0_direction)
    repeated = scan.local_field is None and options.background != "v-sharp"
    if options.method == "qsm-vit":
        guided = scan.magnitude is not None
        sentences.append(
            f"The dipole inversion {cite(DIPOLE)} used QSM-ViT ({network or 'no model'}): a total-variation "
            f"map {cite(TIKHONOV_AND_TV)}"
            + (f", free to step where the magnitude does {cite(EDGES)}, " if guided else " ")
            + "was corrected patch by patch by a convolutional transformer "
            f"network {_AGAIN if repeated else ''}and then held to the measured field inside the mask"
            + (" and, by total variation once more, to the edges of the magnitude," if guided else ",")
            + (_CONFINED if guided and scan.local_field is not None else "")
        )
    else:
        how, source = _INVERSION[options.method]
        sentences.append(f"The dipole inversion {cite(DIPOLE)} used {how} {cite(source)},")
    sentences[-1] += f" with the dipole kernel for a field along ({direction}) in voxel axes."
    sentences.append(f"Susceptibility is given in ppm {_RELATIVE_TO[options.reference]}.")
    return " ".join(sentences), tuple(cited)


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
